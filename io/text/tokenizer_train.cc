/* tokenizer_train.cc: training of the tokenizer: SentencePiece's BPE, fed with the lines of documents.
 *
 * SentencePiece drops lines above its limit and lines that hold a tab, a NUL or U+2047 (it uses them as marks); here
 * lines are cut at those, at spaces, or at the limit, so that all of the text counts. */
#include "src/base/exceptions.h"

#include <cstring>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#include <sstream>
#include <string>
#include <unordered_map>

extern "C" {
#include "io/text/text.h"
#include "io/text/tokenizer.h"
#include "io/text/tokenizer_files.h"
#include "src/base/utf8.h"
}

namespace sentencepiece::logging {
void SetMinLogLevel(int level);                               /* exported, but in no installed header */
}

namespace {

constexpr size_t longest_line = 4096; /* bytes, below SentencePiece's max_sentence_length of 4192 */
constexpr int64_t block_bytes = 1 << 22;

class document_lines : public sentencepiece::SentenceIterator {
public:
    document_lines(const char *const *inputs, int n_inputs, const text_format *format, moai_error *err)
        : paths(inputs), n_paths(n_inputs), options(format), error(err)
    {
        Next();
    }
    ~document_lines() override { close(); }
    bool done() const override { return finished; }
    const std::string &value() const override { return line; }
    sentencepiece::util::Status status() const override
    {
        return failed ? sentencepiece::util::Status(sentencepiece::util::StatusCode::kInternal, error->text)
                      : sentencepiece::util::Status();
    }
    bool has_failed() const { return failed; }
    void report() const;
    void Next() override
    {
        while (left == 0)
            if (!next_document()) {
                finished = true;
                return;
            }
        take_line();
    }

private:
    bool next_document();
    void note_block()
    {
        if (counts.bad_lines == 0 && block.counts.bad_lines > 0) first_bad = block.first_bad;
        text_counts_add(&counts, &block.counts);
    }
    void take_line();
    void close()
    {
        text_block_free(&block);
        text_close(file);
        file = nullptr;
    }

    const char *const *paths;
    int n_paths, path = 0;
    const text_format *options;
    moai_error *error;
    text_file *file = nullptr;
    text_block block = {};
    int64_t at = 0;                                           /* of the next block in the file */
    const char *text = nullptr;
    size_t left = 0;
    std::string line;
    bool finished = false, failed = false;
    text_counts counts = {};
    moai_error first_bad = {};
};

void document_lines::report() const
{
    if (counts.replaced > 0)
        warn("%lld characters that are not UTF-8, in %lld documents, were replaced by U+FFFD (%lld of them NUL)",
             static_cast<long long>(counts.replaced), static_cast<long long>(counts.repaired),
             static_cast<long long>(counts.nul));
    if (counts.bad_lines > 0)
        warn("%lld lines of JSON were left out, as --bad_lines skip has it: %s",
             static_cast<long long>(counts.bad_lines), first_bad.text);
}

/* Moves on to the next document through blocks and files; false at the end or on failure. */
bool document_lines::next_document()
{
    for (;;) {
        int got = block.data ? text_next(&block, &text, &left, error) : 0;
        if (got > 0) return true;
        note_block();
        text_block_free(&block);
        if (got == 0 && !file) {
            if (path == n_paths) return false;
            file = text_open(paths[path++], options, error);
            at = 0;
            got = file ? text_judge(file, error) : -1;
        }
        if (got == 0) got = text_read_block(file, at, text_undivided(file) ? INT64_MAX : block_bytes, &block, error);
        at += block_bytes;
        if (got < 0) {
            failed = true;
            return false;
        }
        if (got == 0) close();
    }
}

/* The next line, or as much of it as SentencePiece takes. */
void document_lines::take_line()
{
    size_t n = 0, skip = 0, last_space = 0;

    for (; n < left && n <= longest_line; n++) {
        if (strchr("\n\t\r", text[n])) {                      /* NUL too */
            skip = 1;
            break;
        }
        if (left - n >= 3 && memcmp(text + n, "\xE2\x81\x87", 3) == 0) {
            skip = 3;
            break;
        }
        if (text[n] == ' ' && n > 0) last_space = n;
    }
    if (n > longest_line) n = last_space ? last_space : utf8_cut(text, longest_line);
    line.assign(text, n);
    text += n + skip;
    left -= n + skip;
}

}  // namespace

static int check_options(const tokenizer_train_options *o, moai_error *err)
{
    const int64_t fixed = 2 + 3 + 256;                        /* pad, unknown; eos, im_start, im_end; bytes */

    if (o->vocab_size <= fixed || o->vocab_size > INT32_MAX)
        return error_config(err, "vocab_size %lld: must be above %lld (special symbols and bytes)",
                            static_cast<long long>(o->vocab_size), static_cast<long long>(fixed));
    if (!(o->character_coverage > 0 && o->character_coverage <= 1))
        return error_config(err, "character_coverage %g: must be above 0 and at most 1", o->character_coverage);
    return 0;
}

/* Each is opened and judged, before hours are spent on those before it; what can be read but once, when it is read. */
static int look_at(const char *const *inputs, int n_inputs, const text_format *format, moai_error *err)
{
    for (int i = 0; i < n_inputs; i++) {
        if (!text_reopens(inputs[i])) continue;
        text_file *f = text_open(inputs[i], format, err);
        const int status = f ? text_judge(f, err) : -1;
        text_close(f);
        if (status != 0) return -1;
    }
    return 0;
}

/* "Internal: file.cc(17) [condition] what is wrong": what is wrong.  Two of these are about what was asked. */
static int fail(const sentencepiece::util::Status &status, const tokenizer_train_options *o, moai_error *err)
{
    std::string text = status.ToString();
    const size_t words = text.rfind("] ");

    if (status.code() == sentencepiece::util::StatusCode::kInternal && words != std::string::npos)
        text = text.substr(words + 2);
    if (text.find("Vocabulary size") == 0)
        return error_config(err, "vocab_size %lld does not suit the text: %s", static_cast<long long>(o->vocab_size),
                            text.c_str());
    return error_set(err, "training the tokenizer: %s", text.c_str());
}

/* The model as SentencePiece would write it. */
static int train_model(const char *const *inputs, int n_inputs, const text_format *format,
                       const tokenizer_train_options *o, std::string *model, moai_error *err)
{
    moai_error reading = {};
    document_lines lines(inputs, n_inputs, format, &reading);
    if (!lines.has_failed() && lines.done()) return error_set(err, "%s: no text to train on", inputs[0]);

    std::unordered_map<std::string, std::string> spec = {
        {"model_type", "bpe"},
        {"vocab_size", std::to_string(o->vocab_size)},
        {"character_coverage", std::to_string(o->character_coverage)},
        {"byte_fallback", "true"},
        {"split_digits", "true"},
        {"normalization_rule_name", "identity"},
        {"add_dummy_prefix", "false"},
        {"remove_extra_whitespaces", "false"},
        {"pad_id", "0"}, {"pad_piece", "<|pad|>"},
        {"unk_id", "1"}, {"unk_piece", "<unk>"},
        {"eos_id", "2"}, {"eos_piece", "<|endoftext|>"},
        {"bos_id", "-1"},
        {"control_symbols", "<|im_start|>,<|im_end|>"},
        {"max_sentence_length", "4192"},
        {"num_threads", std::to_string(o->n_threads > 0 ? o->n_threads : 1)},
        {"input_sentence_size", std::to_string(o->input_sentence_size)},
        {"shuffle_input_sentence", o->input_sentence_size > 0 ? "true" : "false"},
    };
    sentencepiece::logging::SetMinLogLevel(2);                /* errors only: what fails comes back in the status */
    sentencepiece::SetRandomGeneratorSeed(static_cast<unsigned>(o->seed));
    auto status = sentencepiece::SentencePieceTrainer::Train(spec, &lines, model);
    if (lines.has_failed()) {
        *err = reading;
        return -1;
    }
    lines.report();
    return status.ok() ? 0 : fail(status, o, err);
}

/* A piece and its score a line, as SentencePiece lists them. */
static int list_pieces(const std::string &model, std::string *list, moai_error *err)
{
    sentencepiece::SentencePieceProcessor sp;
    std::ostringstream lines;
    auto status = sp.LoadFromSerializedProto(model);

    if (!status.ok()) return error_set(err, "the model just trained: %s", status.ToString().c_str());
    for (int id = 0; id < sp.GetPieceSize(); id++) lines << sp.IdToPiece(id) << '\t' << sp.GetScore(id) << '\n';
    *list = lines.str();
    return 0;
}

static int train(const char *const *inputs, int n_inputs, const text_format *format, const tokenizer_files *files,
                 const tokenizer_train_options *o, moai_error *err)
{
    std::string model, list;

    if (train_model(inputs, n_inputs, format, o, &model, err) != 0 || list_pieces(model, &list, err) != 0) return -1;
    return tokenizer_files_commit(files, model.data(), model.size(), list.data(), list.size(), o->vocab_size, err);
}

int tokenizer_train(const char *const *inputs, int n_inputs, const char *prefix, const tokenizer_train_options *o,
                    moai_error *err)
{
    const text_format format = {SEPARATE_LINE, nullptr,    o->text_key,
                                o->replace_invalid, o->content, o->skip_bad_lines};
    tokenizer_files files = {};

    if (check_options(o, err) != 0 || look_at(inputs, n_inputs, &format, err) != 0) return -1;
    int status = tokenizer_files_begin(&files, prefix, o->vocab_size, o->overwrite, err);
    if (status == 0)
        status = guarded("training the tokenizer", err,
                         [&] { return train(inputs, n_inputs, &format, &files, o, err); });
    tokenizer_files_end(&files);
    return status;
}
