/* tokenizer.cc: see tokenizer.h.  Training is in tokenizer_train.cc.
 *
 * A text is cut into units where no piece of the vocabulary can reach across: before a space that follows something
 * else, and around line ends (the constructor looks whether the vocabulary is such; SentencePiece's default is).
 * Byte-pair merges on one side of such a place cannot see the other side, so units encoded one by one give the tokens
 * of the whole; and since most units are words met before, a table of recent units answers for SentencePiece.  A unit
 * longer than longest_unit (a line without a space) is cut there, at a character: time stays linear, and the cut
 * depends on the text alone.
 *
 * Other models change a text, or put a space in front of it (Llama's), and so in front of every unit: there a unit
 * goes without its own first space, and nothing is cut where there is none.  What else a model changes is tried out:
 * its texts are cut at line ends when that makes no difference, or not at all.
 *
 * SentencePiece writes a space as U+2581, so it would give a U+2581 of the text back as a space; here it goes by its
 * bytes. */
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>
#include <xxhash.h>

#define _Noreturn [[noreturn]]                                /* base.h is C */
extern "C" {
#include "tokenizer.h"
#include "utf8.h"
}

namespace {

constexpr char meta_space[] = "\xE2\x96\x81";
constexpr size_t longest_unit = 1 << 14;                      /* bytes */

/* Units met lately and their ids: a table without chains, where a newer unit takes the older one's place. */
class recent_units {
public:
    struct entry {
        uint8_t n_bytes, n_ids;
        char text[30];
        int32_t ids[8];
    };

    recent_units() : table(new entry[n_entries]()) {}
    entry *find(const char *unit, size_t n_bytes) { return &table[XXH3_64bits(unit, n_bytes) % n_entries]; }
    static bool fits(size_t n_bytes) { return n_bytes <= sizeof entry::text; }
    static bool holds(const entry *e, const char *unit, size_t n_bytes)
    {
        return e->n_bytes == n_bytes && memcmp(e->text, unit, n_bytes) == 0;
    }
    static void put(entry *e, const char *unit, size_t n_bytes, const std::vector<int> &ids)
    {
        if (ids.size() > sizeof e->ids / sizeof *e->ids) return;
        e->n_bytes = static_cast<uint8_t>(n_bytes);
        e->n_ids = static_cast<uint8_t>(ids.size());
        memcpy(e->text, unit, n_bytes);
        for (size_t i = 0; i < ids.size(); i++) e->ids[i] = ids[i];
    }

private:
    static constexpr size_t n_entries = 1 << 16;              /* of 64 bytes: 4 MiB */
    std::unique_ptr<entry[]> table;
};

struct id_list {
    int32_t **ids;
    int64_t *n, *capacity;

    void reserve(size_t more)
    {
        int64_t wanted = *n + static_cast<int64_t>(more);
        if (wanted <= *capacity) return;
        *capacity = max_i64(wanted, 2 * *capacity + 64);
        *ids = static_cast<int32_t *>(realloc(*ids, static_cast<size_t>(*capacity) * sizeof **ids));
        CHECK(*ids, "out of host memory: %lld tokens", static_cast<long long>(*capacity));
    }
    void append(const int32_t *more, size_t count)
    {
        if (count == 0) return;
        reserve(count);
        memcpy(*ids + *n, more, count * sizeof **ids);
        *n += static_cast<int64_t>(count);
    }
};

/* Whether a piece has the space in its midst or holds a line end: then no cut there is safe. */
bool has_inner_space(const std::string &piece)
{
    size_t first = 0;
    while (piece.compare(first, 3, meta_space) == 0) first += 3;
    return piece.find(meta_space, first) != std::string::npos;
}

}  // namespace

struct tokenizer {
    sentencepiece::SentencePieceProcessor sp;
    std::vector<std::string> text_of;                         /* what each id decodes to; "" for control symbols */
    int32_t byte_id[256];
    bool lossless;   /* no normalization, no added space, every byte has a piece */
    bool adds_space; /* the same, but for a space in front */
    bool cut_spaces, cut_lines;
    mutable std::mutex lock;
    mutable std::vector<std::unique_ptr<recent_units>> idle;  /* one is taken for each call */

    void read_pieces();
    bool tokens_spell(const std::string &text, const std::string &front) const;
    bool tokens_spell(const std::string &front) const;
    bool lines_are_apart() const;
    size_t unit_length(const char *text, size_t n_bytes) const;
    int encode_unit(const char *unit, size_t n_bytes, recent_units &recent, std::vector<int> &scratch, id_list out,
                    moai_error *err) const;
};

void tokenizer::read_pieces()
{
    for (int32_t &id : byte_id) id = -1;
    cut_spaces = cut_lines = true;
    for (int id = 0; id < sp.GetPieceSize(); id++) {
        std::string piece = sp.IdToPiece(id);
        if (sp.IsByte(id)) {                                  /* "<0x0A>" */
            unsigned long byte = strtoul(piece.c_str() + 3, nullptr, 16) & 255;
            byte_id[byte] = id;
            piece.assign(1, static_cast<char>(byte));
        } else if (sp.IsControl(id)) {
            piece.clear();
        } else if (sp.IsUnknown(id)) {
            piece = "\xEF\xBF\xBD";
        } else {
            cut_spaces &= !has_inner_space(piece);
            cut_lines &= piece.find('\n') == std::string::npos;
            for (size_t at = 0; (at = piece.find(meta_space, at)) != std::string::npos; at++) piece.replace(at, 3, " ");
        }
        text_of.push_back(piece);
    }
    bool has_bytes = true;
    for (int32_t id : byte_id) has_bytes &= id >= 0;
    lossless = has_bytes && tokens_spell("");
    adds_space = has_bytes && tokens_spell(" ");
    if (!lossless) cut_lines &= cut_spaces && lines_are_apart();
}

/* Whether the tokens put together are the text behind `front`.  (SentencePiece's Decode takes an added space away.) */
bool tokenizer::tokens_spell(const std::string &text, const std::string &front) const
{
    std::vector<int> ids;
    std::string back;

    if (!sp.Encode(text, &ids).ok()) return false;
    for (int id : ids) back += text_of[static_cast<size_t>(id)];
    return back == front + text;
}

bool tokenizer::tokens_spell(const std::string &front) const
{
    return tokens_spell(" a  b\tc \n\n d\r\n12 345 e", front) && tokens_spell("z ", front) &&
           tokens_spell("\xC3\xA9\xEF\xAC\x81\xC2\xA0\xE1\xBA\x9B\xCC\xA3", front);
}

/* Whether lines and line ends one by one have the tokens of the whole. */
bool tokenizer::lines_are_apart() const
{
    std::vector<int> whole, all, ids;
    std::string text;

    for (const char *part : {"e a", "\n", "t ", "\n", "\n", " o  n", "\n", "e"}) {
        text += part;
        if (!sp.Encode(part, &ids).ok()) return false;
        all.insert(all.end(), ids.begin(), ids.end());
    }
    return sp.Encode(text, &whole).ok() && whole == all;
}

/* Bytes of the first unit of the text. */
size_t tokenizer::unit_length(const char *text, size_t n_bytes) const
{
    const bool cut_words = cut_spaces && (lossless || adds_space);
    size_t limit = lossless && n_bytes > longest_unit ? longest_unit : n_bytes, n = 1;

    if (lossless && text[0] == '\xE2' && n_bytes >= 3 && memcmp(text, meta_space, 3) == 0) return 3;
    if (cut_lines && text[0] == '\n') return 1;
    for (; n < limit; n++) {
        if (cut_lines && text[n] == '\n') return n;
        if (cut_words && text[n] == ' ' && text[n - 1] != ' ' && (lossless || n + 1 < n_bytes)) return n;
        if (lossless && text[n] == '\xE2' && n + 3 <= n_bytes && memcmp(text + n, meta_space, 3) == 0) return n;
    }
    return n < n_bytes ? utf8_cut(text, n) : n;
}

int tokenizer::encode_unit(const char *unit, size_t n_bytes, recent_units &recent, std::vector<int> &scratch,
                           id_list out, moai_error *err) const
{
    recent_units::entry *e = nullptr;

    if (recent_units::fits(n_bytes)) {
        e = recent.find(unit, n_bytes);
        if (recent_units::holds(e, unit, n_bytes)) {
            out.reserve(sizeof e->ids / sizeof *e->ids);
            memcpy(*out.ids + *out.n, e->ids, sizeof e->ids); /* all eight: one vector store; the rest is overwritten */
            *out.n += e->n_ids;
            return 0;
        }
    }
    if (lossless && n_bytes == 3 && memcmp(unit, meta_space, 3) == 0) {
        scratch.clear();
        for (size_t i = 0; i < 3; i++) scratch.push_back(byte_id[static_cast<unsigned char>(unit[i])]);
    } else {
        auto status = sp.Encode(absl::string_view(unit, n_bytes), &scratch);
        if (!status.ok()) return error_set(err, "SentencePiece: %s", status.ToString().c_str());
    }
    if (e) recent_units::put(e, unit, n_bytes, scratch);
    out.append(scratch.data(), scratch.size());
    return 0;
}

tokenizer *tokenizer_open(const char *model_path, moai_error *err)
{
    std::unique_ptr<tokenizer> t(new tokenizer);
    auto status = t->sp.Load(model_path);

    if (!status.ok()) {
        error_set(err, "%s: cannot load as a SentencePiece model: %s", model_path, status.ToString().c_str());
        return nullptr;
    }
    t->read_pieces();
    return t.release();
}

void tokenizer_free(tokenizer *t) { delete t; }
int64_t tokenizer_vocab_size(const tokenizer *t) { return t->sp.GetPieceSize(); }
int32_t tokenizer_eos(const tokenizer *t) { return t->sp.eos_id(); }
int32_t tokenizer_pad(const tokenizer *t) { return t->sp.pad_id(); }

const char *tokenizer_piece(const tokenizer *t, int32_t id, piece_kind *kind)
{
    *kind = t->sp.IsByte(id) ? PIECE_BYTE : t->sp.IsControl(id) || t->sp.IsUnknown(id) ? PIECE_SPECIAL : PIECE_TEXT;
    return t->sp.IdToPiece(id).c_str();
}

/* The trainer scores its merges 0, -1, -2, ... in the order of ids; a unigram model has logarithms. */
bool tokenizer_is_byte_pair(const tokenizer *t)
{
    int merge = 0;

    for (int id = 0; id < t->sp.GetPieceSize(); id++)
        if (!t->sp.IsByte(id) && !t->sp.IsControl(id) && !t->sp.IsUnknown(id) &&
            t->sp.GetScore(id) != static_cast<float>(-merge++))
            return false;
    return t->lossless;
}

int32_t tokenizer_id(const tokenizer *t, const char *piece)
{
    int id = t->sp.PieceToId(piece);
    return t->sp.IsUnknown(id) && t->sp.IdToPiece(id) != piece ? -1 : id;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, int64_t *n, int64_t *capacity,
                     moai_error *err)
{
    std::unique_ptr<recent_units> recent;
    std::vector<int> scratch;
    int64_t bad = utf8_find_invalid(text, n_bytes);
    int status = 0;

    if (bad >= 0)
        return error_set(err, "byte 0x%02x at %lld of the text is not UTF-8", static_cast<unsigned char>(text[bad]),
                         static_cast<long long>(bad));
    {
        std::lock_guard<std::mutex> guard(t->lock);
        if (!t->idle.empty()) {
            recent = std::move(t->idle.back());
            t->idle.pop_back();
        }
    }
    if (!recent) recent.reset(new recent_units);
    for (size_t at = 0; at < n_bytes && status == 0;) {
        size_t length = t->unit_length(text + at, n_bytes - at), added = t->adds_space && at > 0;
        status = t->encode_unit(text + at + added, length - added, *recent, scratch, id_list{ids, n, capacity}, err);
        at += length;
    }
    std::lock_guard<std::mutex> guard(t->lock);
    t->idle.push_back(std::move(recent));
    return status;
}

int tokenizer_encode_plain(const tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, int64_t *n,
                           int64_t *capacity, moai_error *err)
{
    std::vector<int> list;
    auto status = t->sp.Encode(absl::string_view(text, n_bytes), &list);

    if (!status.ok()) return error_set(err, "SentencePiece: %s", status.ToString().c_str());
    id_list{ids, n, capacity}.append(list.data(), list.size());
    return 0;
}

char *tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t n, size_t *n_bytes)
{
    std::string text;

    if (t->lossless) {
        for (int64_t i = 0; i < n; i++)
            text += ids[i] >= 0 && static_cast<size_t>(ids[i]) < t->text_of.size()
                        ? t->text_of[static_cast<size_t>(ids[i])]
                        : "\xEF\xBF\xBD";
    } else {
        std::vector<int> list;
        for (int64_t i = 0; i < n; i++)
            list.push_back(ids[i] >= 0 && ids[i] < t->sp.GetPieceSize() ? ids[i] : t->sp.unk_id());
        t->sp.Decode(list, &text).IgnoreError();
    }
    char *out = static_cast<char *>(xmalloc(text.size() + 1));
    memcpy(out, text.data(), text.size());
    if (n_bytes) *n_bytes = text.size();
    return out;
}
