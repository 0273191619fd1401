/* hf_other.c: weights in other forms than safetensors, see hf_other_weights in hf.h. */
#include "io/hf/hf.h"
#include "io/checkpoint/carried.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>

#define IN_PYTHON "which is not read: in Python, AutoModelForCausalLM.from_pretrained(DIR)"
#define SAVED ".save_pretrained(NEW, safe_serialization=True) writes safetensors"

/* By their names, the most telling first. */
static const struct {
    const char *pattern, *way;
} forms[] = {
    {"adapter_model.*", "adapters, which are no model: `moai_checkpoint merge BASE DIR HF_DIR` folds them into theirs"},
    {"adapter_config.json", "adapters': `moai_checkpoint merge BASE DIR HF_DIR` folds them into their model"},
    {"model-*-of-*.safetensors", "but not model.safetensors.index.json, which says what is in which: fetch that too"},
    {"pytorch_model*.bin", IN_PYTHON SAVED},
    {"pytorch_model.bin.index.json", "whose files are not there, nor would they be read: safetensors are"},
    {"*.safetensors", "but only model.safetensors is read: if it is the model, rename it"},
    {"*.gguf", "llama.cpp's format, which is not read: take the safetensors that it was made of"},
    {"tf_model.h5", "which is not read: in Python, AutoModelForCausalLM.from_pretrained(DIR, from_tf=True)" SAVED},
    {"flax_model.msgpack", "which is not read: in Python, AutoModelForCausalLM.from_pretrained(DIR, from_flax=True)"
                           SAVED},
    {"*.distcp", "a distributed checkpoint of PyTorch, which is not read: make safetensors of it first"},
    {"mp_rank_*", "a checkpoint of Megatron or DeepSpeed, which is not read: make safetensors of it first"},
    {"global_step*", "a checkpoint of DeepSpeed, which is not read: make safetensors of it first (zero_to_fp32.py)"},
    {"consolidated.*.pth", "which is not read: make safetensors of it first"},
    {"*.pt", "which is not read: make safetensors of it first"},
    {"*.pth", "which is not read: make safetensors of it first"},
    {"*.bin", "which is not read: safetensors are"},
    {"*.onnx", "which is not read: take the safetensors that it was made of"},
};

static bool is_training_state(const char *name)
{
    return fnmatch("optimizer.*", name, 0) == 0 || fnmatch("scheduler.*", name, 0) == 0 ||
           fnmatch("training_args.*", name, 0) == 0 || fnmatch("rng_state*", name, 0) == 0;
}

/* The first by name that has the pattern. */
static char *first_of(const char *dir, const char *pattern)
{
    struct dirent **list;
    const int n = scandir(dir, &list, NULL, alphasort);
    char *found = NULL;

    for (int i = 0; i < n; i++) {
        if (!found && fnmatch(pattern, list[i]->d_name, 0) == 0 && !is_training_state(list[i]->d_name))
            found = xstrdup(list[i]->d_name);
        free(list[i]);
    }
    if (n >= 0) free(list);
    return found;
}

char *hf_other_weights(const char *dir)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char *name = first_of(dir, forms[i].pattern);
        if (!name) continue;
        char *text = xasprintf("holds %.200s, %s", name, forms[i].way);
        free(name);
        return text;
    }
    return NULL;
}
