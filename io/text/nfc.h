/* nfc.h: Unicode's normalization form C (UAX 15), which tokenizers of Qwen ask for: utf8proc's, called only where a
 * text may not be in it. */
#ifndef MOAI_NFC_H
#define MOAI_NFC_H

#include "src/base/base.h"

/* Whether well-formed UTF-8 is in form C for sure, without looking further than one character each. */
bool nfc_is_plain(const char *text, size_t n_bytes);
/* The text in form C, malloc'd and NUL-terminated.  -1 where utf8proc cannot. */
int nfc_normalize(const char *text, size_t n_bytes, char **to, size_t *n_to, moai_error *err);

#endif
