/* exceptions.h: where C calls C++ (io/text/tokenizer_sentencepiece.cc, tokenizer_train.cc): no exception crosses, it
 * becomes the error. */
#ifndef MOAI_EXCEPTIONS_H
#define MOAI_EXCEPTIONS_H

#define _Noreturn [[noreturn]] /* base.h is C */
extern "C" {
#include "src/base/base.h"
}

#include <exception>
#include <new>

/* f() returns 0, or -1 with *err filled.  The words begin with `what`. */
template <typename F> int guarded(const char *what, moai_error *err, F &&f)
{
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return error_set(err, "%s: out of host memory", what);
    } catch (const std::exception &e) {
        return error_set(err, "%s: %s", what, e.what());
    } catch (...) {
        return error_set(err, "%s: an exception of unknown type", what);
    }
}

#endif
