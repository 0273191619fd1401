/* choices.h: the names of what a model may be asked to be, for tables of keys (keys.h). */
#ifndef MOAI_CHOICES_H
#define MOAI_CHOICES_H

#include "src/config/keys.h"

extern const key_choice weight_quantizations[], hc_mixings[]; /* of the types of model_config.h */

#endif
