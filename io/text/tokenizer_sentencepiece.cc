/* tokenizer_sentencepiece.cc: SentencePiece's models, see tokenizer.h.  Training is in tokenizer_train.cc.
 *
 * The tokens are those that SentencePiece gives the whole text, found faster: a text is cut into units where no piece
 * of the vocabulary can reach across, and since most units are words met before, a table of recent units answers for
 * SentencePiece.  A byte-pair merge joins two neighbours to a piece, so none crosses a place between two characters
 * that stand side by side in no piece: what happens on one side cannot see the other.  Such places are, with the
 * vocabularies that SentencePiece trains by default, before a space that follows something else, and around line ends.
 * A unit that grows long (a line without a space) is cut at the first place that the table of all such pairs shows; one
 * without any, such as a million times the same letter, is encoded whole, up to 4 MiB: there it is cut, with
 * a warning.
 *
 * A space in front of a text (Llama's add_dummy_prefix) is put there here, before the cutting, and SentencePiece told
 * not to.  Texts are left whole where a unit's tokens depend on more than its characters: models that normalize or drop
 * spaces, unigram models (the sums of their scores are rounded, in 32 bits, from the text's beginning on), models with
 * pieces out of use.
 *
 * U+2581 in a text is a space to SentencePiece, which writes spaces so: its tokens are those of a space. */
#include "src/base/exceptions.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

extern "C" {
#include "io/text/recent_units.h"
#include "io/text/tokenizer_kind.h"
#include "src/base/utf8.h"
}

namespace
{

constexpr char meta_space[] = "\xE2\x96\x81"; /* U+2581 */
constexpr size_t long_unit = 1 << 12;         /* bytes, from which on any place to cut is taken */
constexpr size_t longest_unit = 1 << 22;      /* is cut: SentencePiece takes some 230 bytes of memory a byte */
constexpr size_t most_bytes = INT32_MAX / 3;  /* SentencePiece counts in int; a space becomes 3 bytes */

/* What SentencePiece does to a text before and in its search: fields of sentencepiece_model.proto's ModelProto, whose
 * header is not installed, read from the serialized model. */
struct model_traits {
    enum { UNIGRAM = 1, BPE, WORD, CHAR };
    uint64_t type = UNIGRAM;
    bool byte_fallback = false, space_behind = false; /* space_behind: treat_whitespace_as_suffix */
    bool adds_space = true, drops_spaces = true, escapes_spaces = true, normalizes = false;
    std::string untested; /* the model without self_test_data: texts and their tokens */

    explicit model_traits(const std::string &model) { read_fields(model.data(), model.data() + model.size(), 0); }

  private:
    void read_fields(const char *at, const char *end, uint64_t message);
    void set(uint64_t message, uint64_t field, uint64_t value);
};

uint64_t read_varint(const char *&at, const char *end)
{
    uint64_t value = 0;

    for (int shift = 0; at < end && shift < 64; shift += 7) {
        const unsigned char byte = static_cast<unsigned char>(*at++);
        value |= static_cast<uint64_t>(byte & 127) << shift;
        if (byte < 128) break;
    }
    return value;
}

/* message: 0 the ModelProto itself, 2 its trainer_spec, 3 its normalizer_spec. */
void model_traits::read_fields(const char *at, const char *end, uint64_t message)
{
    while (at < end) {
        const char *begin = at;
        const uint64_t tag = read_varint(at, end), field = tag >> 3, wire = tag & 7;
        const size_t left = static_cast<size_t>(end - at);
        if (wire == 0) {
            set(message, field, read_varint(at, end));
        } else if (wire == 2) {
            const uint64_t n = read_varint(at, end);
            if (n > static_cast<uint64_t>(end - at)) return;
            if (message == 0 && (field == 2 || field == 3)) read_fields(at, at + n, field);
            if (message == 3 && field == 2) normalizes = n > 0; /* precompiled_charsmap */
            at += n;
        } else if ((wire == 1 && left >= 8) || (wire == 5 && left >= 4)) {
            at += wire == 1 ? 8 : 4;
        } else {
            return;
        }
        if (message == 0 && field != 4) untested.append(begin, at);
    }
}

void model_traits::set(uint64_t message, uint64_t field, uint64_t value)
{
    if (message == 2 && field == 3) type = value;
    if (message == 2 && field == 24) space_behind = value != 0;
    if (message == 2 && field == 35) byte_fallback = value != 0;
    if (message == 3 && field == 3) adds_space = value != 0;
    if (message == 3 && field == 4) drops_spaces = value != 0;
    if (message == 3 && field == 5) escapes_spaces = value != 0;
}

/* Which two characters stand side by side in some piece: a set that may hold a few pairs more. */
class character_pairs
{
  public:
    character_pairs() : bits(n_bits) {}
    static size_t length(char lead)
    {
        return "\1\1\1\1\1\1\1\1\1\1\1\1\2\2\3\4"[static_cast<unsigned char>(lead) >> 4];
    }
    void add(const std::string &piece)
    {
        for (size_t at = 0, next; (next = at + length(piece[at])) < piece.size(); at = next)
            bits[place(piece.data() + at, next - at, piece.data() + next, piece.size() - next)] = true;
    }
    /* The character that ends before `at` and the one that begins there. */
    bool have(const char *text, size_t at, size_t n_bytes) const
    {
        size_t left = at - 1;
        while (left > 0 && (static_cast<unsigned char>(text[left]) & 0xC0) == 0x80) left--;
        return bits[place(text + left, at - left, text + at, n_bytes - at)];
    }

  private:
    static constexpr size_t n_bits = 1 << 22;
    static uint64_t character(const char *p, size_t n_bytes)
    {
        uint32_t bytes = 0;
        const char *from = p[0] == ' ' ? meta_space : p;
        memcpy(&bytes, from, std::min(length(*from), from == p ? n_bytes : 3));
        return bytes;
    }
    static size_t place(const char *left, size_t n_left, const char *right, size_t n_right)
    {
        const uint64_t h = (character(left, n_left) << 32 | character(right, n_right)) * 0x9E3779B97F4A7C15u;
        return (h ^ h >> 29) % n_bits;
    }
    std::vector<bool> bits;
};

struct table_free {
    void operator()(recent_unit *table) const { free(table); }
};
using recent_units = std::unique_ptr<recent_unit[], table_free>;

/* Whether a piece has a space behind something else. */
bool has_inner_space(const std::string &piece)
{
    size_t first = 0;
    while (piece.compare(first, 3, meta_space) == 0) first += 3;
    return piece.find(meta_space, first) != std::string::npos;
}

bool ends_with_meta_space(const char *text, size_t n)
{
    return text[n - 1] == meta_space[2] && n >= 3 && memcmp(text + n - 3, meta_space, 3) == 0;
}

} // namespace

struct sentencepiece_model {
    sentencepiece::SentencePieceProcessor sp, no_prefix; /* the model, and that it puts no space in front */
    std::vector<std::string> text_of;                    /* what each id decodes to; "" for control symbols */
    bool lossless;                                       /* all but U+2581 comes back */
    bool divisible;                                      /* into units; then the two flags and the pairs count */
    bool space_in_front, space_behind;
    bool cut_spaces, cut_lines; /* no piece goes across */
    character_pairs pairs;
    mutable std::atomic<bool> has_warned{false};
    mutable std::mutex lock;
    mutable std::vector<recent_units> idle; /* one is taken for each call */

    int load(const char *path, moai_error *err);
    bool read_pieces();
    size_t cut_anyway(const char *text) const;
    size_t unit_length(const char *text, size_t n_bytes) const;
    int encode_whole(const sentencepiece::SentencePieceProcessor &, const char *text, size_t n_bytes,
                     std::vector<int> &, moai_error *err) const;
    int encode_unit(const char *unit, size_t n_bytes, recent_unit *recent, std::vector<int> &scratch, token_row out,
                    moai_error *err) const;
    int encode_units(const char *text, size_t n_bytes, recent_unit *recent, token_row out, moai_error *err) const;
    int encode(const char *text, size_t n_bytes, token_row out, moai_error *err) const;
};

/* Fills text_of, the pairs and what follows from them; true: each byte has a piece. */
bool sentencepiece_model::read_pieces()
{
    bool byte_seen[256] = {false}, all = true;

    cut_spaces = cut_lines = true;
    for (int id = 0; id < sp.GetPieceSize(); id++) {
        std::string piece = sp.IdToPiece(id);
        if (sp.IsByte(id)) { /* "<0x0A>" */
            unsigned long byte = strtoul(piece.c_str() + 3, nullptr, 16) & 255;
            byte_seen[byte] = true;
            piece.assign(1, static_cast<char>(byte));
        } else if (sp.IsControl(id)) {
            piece.clear();
        } else if (sp.IsUnknown(id)) {
            piece = "\xEF\xBF\xBD";
        } else {
            pairs.add(piece);
            cut_spaces &= !has_inner_space(piece);
            cut_lines &= piece.find('\n') == std::string::npos || piece.size() == 1;
            for (size_t at = 0; (at = piece.find(meta_space, at)) != std::string::npos; at++) piece.replace(at, 3, " ");
        }
        divisible &= !sp.IsUnused(id);
        text_of.push_back(piece);
    }
    for (bool seen : byte_seen) all &= seen;
    return all;
}

int sentencepiece_model::load(const char *path, moai_error *err)
{
    auto status = sp.Load(path);
    if (!status.ok())
        return error_set(err, "%s: cannot load as a SentencePiece model: %s", path, status.ToString().c_str());
    const model_traits is(sp.serialized_model_proto());
    const bool plain = !is.normalizes && !is.drops_spaces && is.escapes_spaces;
    divisible = plain && (is.type == model_traits::BPE || is.type == model_traits::CHAR);
    lossless = read_pieces() && plain && is.byte_fallback && !is.adds_space;
    space_in_front = is.adds_space && !is.space_behind;
    space_behind = is.adds_space && is.space_behind;
    if (divisible && is.adds_space) { /* normalizer_spec, merged: add_dummy_prefix false */
        status = no_prefix.LoadFromSerializedProto(is.untested + std::string("\x1A\x02\x18\x00", 4));
        if (!status.ok()) return error_set(err, "%s: %s", path, status.ToString().c_str());
    }
    return 0;
}

size_t sentencepiece_model::cut_anyway(const char *text) const
{
    if (!has_warned.exchange(true))
        warn("a text has %zu MiB in a row where each two neighbours may belong together (\"%.*s...\"): it is cut "
             "there, and the tokens beside the cut may be others than SentencePiece's",
             longest_unit >> 20, static_cast<int>(utf8_cut(text, 16)), text);
    return utf8_cut(text, longest_unit);
}

/* Bytes of the first unit of the text. */
size_t sentencepiece_model::unit_length(const char *text, size_t n_bytes) const
{
    if (cut_lines && text[0] == '\n') return 1;
    const size_t n_looked_at = std::min(n_bytes, long_unit);
    size_t n = 1;
    for (; n < n_looked_at; n++) {
        if (cut_lines && text[n] == '\n') return n;
        if (cut_spaces && text[n] == ' ' && text[n - 1] != ' ' && !ends_with_meta_space(text, n)) return n;
    }
    const size_t limit = std::min(n_bytes, longest_unit);
    while (n < limit && ((static_cast<unsigned char>(text[n]) & 0xC0) == 0x80 || pairs.have(text, n, n_bytes))) n++;
    return n < n_bytes && n == longest_unit ? cut_anyway(text) : n;
}

int sentencepiece_model::encode_whole(const sentencepiece::SentencePieceProcessor &by, const char *text, size_t n_bytes,
                                      std::vector<int> &ids, moai_error *err) const
{
    if (n_bytes > most_bytes)
        return error_set(err, "SentencePiece takes at most %zu bytes that cannot be cut, these are %zu", most_bytes,
                         n_bytes);
    auto status = by.Encode(absl::string_view(text, n_bytes), &ids);
    return status.ok() ? 0 : error_set(err, "SentencePiece: %s", status.ToString().c_str());
}

int sentencepiece_model::encode_unit(const char *unit, size_t n_bytes, recent_unit *recent, std::vector<int> &scratch,
                                     token_row out, moai_error *err) const
{
    recent_unit *e = nullptr;

    if (n_bytes <= RECENT_BYTES) {
        e = recent_units_find(recent, unit, n_bytes);
        if (recent_unit_is(e, unit, n_bytes)) {
            token_row_reserve(out, RECENT_IDS);
            memcpy(*out.ids + *out.n, e->ids, sizeof e->ids); /* all eight: one vector store; the rest is overwritten */
            *out.n += e->n_ids;
            return 0;
        }
    }
    if (encode_whole(space_in_front || space_behind ? no_prefix : sp, unit, n_bytes, scratch, err) != 0) return -1;
    if (e) recent_unit_put(e, unit, n_bytes, scratch.data(), scratch.size());
    token_row_add(out, scratch.data(), static_cast<int64_t>(scratch.size()));
    return 0;
}

int sentencepiece_model::encode_units(const char *text, size_t n_bytes, recent_unit *recent, token_row out,
                                      moai_error *err) const
{
    const int unknown = sp.unk_id();
    std::vector<int> scratch;
    std::string spaced;
    int status = 0;

    for (size_t at = 0, length; at < n_bytes && status == 0; at += length) {
        const char *unit = text + at;
        const int64_t before = *out.n;
        length = unit_length(unit, n_bytes - at);
        const bool front = space_in_front && at == 0, behind = space_behind && at + length == n_bytes;
        if (front || behind) spaced.assign(front, ' ').append(unit, length).append(behind, ' ');
        status = front || behind ? encode_unit(spaced.data(), spaced.size(), recent, scratch, out, err)
                                 : encode_unit(unit, length, recent, scratch, out, err);
        /* SentencePiece makes one of unknowns that follow each other */
        if (at > 0 && *out.n > before && (*out.ids)[before] == unknown && (*out.ids)[before - 1] == unknown) {
            memmove(*out.ids + before, *out.ids + before + 1,
                    static_cast<size_t>(*out.n - before - 1) * sizeof **out.ids);
            --*out.n;
        }
    }
    return status;
}

int sentencepiece_model::encode(const char *text, size_t n_bytes, token_row out, moai_error *err) const
{
    if (!divisible) {
        std::vector<int> ids;
        if (encode_whole(sp, text, n_bytes, ids, err) != 0) return -1;
        token_row_add(out, ids.data(), static_cast<int64_t>(ids.size()));
        return 0;
    }
    recent_units recent;
    {
        std::lock_guard<std::mutex> guard(lock);
        if (!idle.empty()) {
            recent = std::move(idle.back());
            idle.pop_back();
        }
    }
    if (!recent) recent.reset(recent_units_new());
    const int status = encode_units(text, n_bytes, recent.get(), out, err);
    std::lock_guard<std::mutex> guard(lock);
    idle.push_back(std::move(recent));
    return status;
}

/* -- the kind's functions -- */

namespace
{

const sentencepiece_model &of(const void *model) { return *static_cast<const sentencepiece_model *>(model); }

void free_model(void *model) { delete static_cast<sentencepiece_model *>(model); }

/* The trainer scores its merges 0, -1, -2, ... in the order of ids; a unigram model has logarithms. */
bool is_byte_pair(const sentencepiece_model &m)
{
    int merge = 0;

    for (int id = 0; id < m.sp.GetPieceSize(); id++)
        if (!m.sp.IsByte(id) && !m.sp.IsControl(id) && !m.sp.IsUnknown(id) &&
            m.sp.GetScore(id) != static_cast<float>(-merge++))
            return false;
    return m.lossless;
}

void *open_model(const char *path, tokenizer_facts *facts, moai_error *err)
{
    sentencepiece_model *m = nullptr;

    if (guarded(path, err, [&] { return (m = new sentencepiece_model)->load(path, err); }) != 0) {
        delete m;
        return nullptr;
    }
    *facts = tokenizer_facts{m->sp.GetPieceSize(), m->sp.eos_id(),   m->sp.pad_id(),
                             m->sp.unk_id(),       is_byte_pair(*m), m->lossless};
    return m;
}

bool find_unknown(const void *model, const char *text, size_t n_bytes, char *found, size_t room)
{
    const auto &sp = of(model).sp;
    std::vector<std::string> pieces; /* of an unknown one: what it stands for */
    moai_error unused;
    bool is_found = false;

    guarded("SentencePiece", &unused, [&] {
        if (!sp.Encode(absl::string_view(text, n_bytes), &pieces).ok()) return -1;
        for (std::string &piece : pieces) {
            if (sp.PieceToId(piece) != sp.unk_id()) continue;
            if (piece.size() > 3 && piece.compare(0, 3, meta_space) == 0) piece.erase(0, 3);
            const size_t n = piece.size() < room ? piece.size() : utf8_cut(piece.data(), room - 1);
            memcpy(found, piece.data(), n);
            found[n] = 0;
            is_found = true;
            break;
        }
        return 0;
    });
    return is_found;
}

const char *piece_of(const void *model, int32_t id, piece_kind *kind)
{
    const auto &sp = of(model).sp;

    *kind = sp.IsByte(id) ? PIECE_BYTE : sp.IsControl(id) || sp.IsUnknown(id) ? PIECE_SPECIAL : PIECE_TEXT;
    return sp.IdToPiece(id).c_str();
}

int32_t id_of(const void *model, const char *piece)
{
    const auto &sp = of(model).sp;
    const int id = sp.PieceToId(piece);

    return sp.IsUnknown(id) && sp.IdToPiece(id) != piece ? -1 : id;
}

const char *bytes_of(const void *model, int32_t id, size_t *n_bytes)
{
    const std::string &text = of(model).text_of[static_cast<size_t>(id)];

    *n_bytes = text.size();
    return text.data();
}

/* Control symbols in a text are cut out of it: what stands between them is text. */
int encode_special(const sentencepiece_model &m, const char *text, size_t n_bytes, token_row out, moai_error *err)
{
    size_t from = 0;

    for (size_t at = 0; at < n_bytes; at++) {
        int32_t found = -1;
        size_t length = 0;
        for (int id = 0; text[at] == '<' && id < m.sp.GetPieceSize(); id++) {
            const std::string &name = m.sp.IdToPiece(id);
            if (m.sp.IsControl(id) && name.size() > length && name.size() <= n_bytes - at &&
                memcmp(name.data(), text + at, name.size()) == 0)
                found = id, length = name.size();
        }
        if (found < 0) continue;
        if (at > from && m.encode(text + from, at - from, out, err) != 0) return -1;
        token_row_add(out, &found, 1);
        from = at + length;
        at = from - 1;
    }
    return from < n_bytes ? m.encode(text + from, n_bytes - from, out, err) : 0;
}

int encode_text(const void *model, const char *text, size_t n_bytes, bool special, token_row out, moai_error *err)
{
    return guarded("SentencePiece", err, [&] {
        return special ? encode_special(of(model), text, n_bytes, out, err) : of(model).encode(text, n_bytes, out, err);
    });
}

int encode_plain(const void *model, const char *text, size_t n_bytes, token_row out, moai_error *err)
{
    return guarded("SentencePiece", err, [&] {
        std::vector<int> list;
        if (of(model).encode_whole(of(model).sp, text, n_bytes, list, err) != 0) return -1;
        token_row_add(out, list.data(), static_cast<int64_t>(list.size()));
        return 0;
    });
}

std::string decoded(const sentencepiece_model &m, const int32_t *ids, int64_t n)
{
    std::string text;
    std::vector<int> list;

    for (int64_t i = 0; i < n; i++) {
        const bool known = ids[i] >= 0 && static_cast<size_t>(ids[i]) < m.text_of.size();
        if (m.lossless)
            text += known ? m.text_of[static_cast<size_t>(ids[i])] : "\xEF\xBF\xBD";
        else
            list.push_back(known ? ids[i] : m.sp.unk_id());
    }
    if (!m.lossless) m.sp.Decode(list, &text).IgnoreError();
    return text;
}

char *decode_ids(const void *model, const int32_t *ids, int64_t n, size_t *n_bytes)
{
    moai_error err;
    char *out = nullptr;
    const int status = guarded("SentencePiece", &err, [&] {
        const std::string text = decoded(of(model), ids, n);
        out = static_cast<char *>(xmalloc(text.size() + 1));
        memcpy(out, text.data(), text.size());
        if (n_bytes) *n_bytes = text.size();
        return 0;
    });

    CHECK(status == 0, "%s", err.text);
    return out;
}

} // namespace

extern "C" const tokenizer_kind tokenizer_sentencepiece = {
    open_model, free_model, encode_text, encode_plain, decode_ids, find_unknown, id_of, piece_of, bytes_of, nullptr};
