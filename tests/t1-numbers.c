/* The CPU backend's own numbers: exp in vectors, and bf16 against every float that could round wrongly. */
#include "src/cpu/cpu.h"
#include "tests/lib/battery.h"

static void check_exp(void)
{
    double worst = 0.0;
    float worst_at = 0.0f;

    for (float x = -87.33f; x <= 88.37f; x += 1.37e-5f) {
        double exact = exp((double)x), ulp = ldexp(1.0, ilogb(exact) - 23), error = fabs(exp_fast(x) - exact) / ulp;
        if (error > worst) worst = error, worst_at = x;
    }
    ok(worst <= 2.0, "exp within 2 ulp: worst %.3f at %.9g", worst, worst_at);
    ok(exp_fast(0.0f) == 1.0f && exp_fast(-0.0f) == 1.0f, "exp(0) is 1");
    ok(exp_fast(-INFINITY) == 0.0f && exp_fast(-88.0f) == 0.0f && exp_fast(-1e30f) == 0.0f, "exp far below is 0");
    ok(exp_fast(INFINITY) == INFINITY && exp_fast(89.0f) == INFINITY, "exp far above is infinite");
    ok(isnan(exp_fast(NAN)), "exp(NaN) is NaN");
}

static void check_bf16(void)
{
    uint32_t wrong = 0, not_same = 0;

    for (uint32_t high = 0; high < 0x10000; high++) {
        static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
        float same = float_of_bf16((uint16_t)high);
        if (!isnan(same)) not_same += bf16_of_float(same) != high;
        for (int i = 0; i < 6; i++) {
            float x = float_of_bits(high << 16 | low[i]);
            if (isnan(x)) wrong += !isnan(float_of_bf16(bf16_of_float(x)));
            else if ((high & 0x7fff) != 0x7f7f) wrong += bf16_of_float(x) != bf16_nearest(x);
        }
    }
    ok(wrong == 0, "bf16: to nearest, ties to even, NaN stays NaN (%u of 393216 wrong)", wrong);
    ok(not_same == 0, "bf16: there and back is the identity (%u of 65536 differ)", not_same);
    ok(bf16_of_float(3.4028235e38f) == 0x7f80, "bf16: the largest float rounds to infinity");
}

int main(void)
{
    check_exp();
    check_bf16();
    return tap_done();
}
