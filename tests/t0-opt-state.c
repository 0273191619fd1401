/* The bytes of an optimizer's states (opt_state.h): by type, with a scale for each block begun; what lies on the host
 * is no part of the device's plan. */
#include "src/params/opt_state.h"
#include "tests/lib/tap.h"

#include <string.h>

int main(void)
{
    const state_spec lean[] = {{"weight", DT_BF16, 0, PLACE_DEVICE}, {"exp_avg", DT_U8, 256, PLACE_DEVICE},
                               {"exp_avg_sq", DT_F32, 0, PLACE_HOST}};
    opt_state o = opt_state_of((state_table){lean, 3}, 1000);
    arena device = {.name = "optimizer"};

    ok(state_bytes(&lean[0], 1000) == 2000, "bf16 takes 2 bytes an element");
    ok(state_bytes(&lean[1], 1000) == 1000 + 4 * 4, "a byte each, and 4 scales for 3.9 blocks of 256");
    ok(state_bytes(&lean[1], 1024) == 1024 + 4 * 4 && state_bytes(&lean[1], 1025) == 1025 + 5 * 4,
       "one for each block begun");
    ok(opt_state_bytes(&o) == 2000 + 1016 + 4000, "all three: %zu bytes", opt_state_bytes(&o));
    opt_state_plan(&o, &device, NULL);
    ok(device.high >= 3016 && device.high < 4000, "the device's plan has the two that lie there: %zu bytes",
       device.high);
    o = opt_state_of((state_table){lean, 3}, 1000);
    device = (arena){.name = "optimizer"};
    opt_state_plan(&o, &device, &device);
    ok(o.data[STATE_WEIGHT] == &device && device.high < 2000, "or one, where the weights lie already");
    const opt_state host = opt_state_on_host(o);
    ok(host.spec[0].place == PLACE_HOST && host.spec[1].place == PLACE_HOST && !host.data[0] &&
           host.spec[1].block == 256 && opt_state_bytes(&host) == opt_state_bytes(&o),
       "on the host they are as many bytes, and not there yet");
    ok(adamw_states.n == 3 && strcmp(adamw_states.list[STATE_EXP_AVG_SQ].name, "exp_avg_sq") == 0, "AdamW has three");
    return tap_done();
}
