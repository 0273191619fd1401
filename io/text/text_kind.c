/* text_kind.c: see text_kind.h */
#include "io/text/text_kind.h"

#include "src/base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool takes_ending(const char *path, size_t *n, const char *ending)
{
    const size_t k = strlen(ending);
    const bool has = *n > k && path[*n - k - 1] == '.' && strncasecmp(path + *n - k, ending, k) == 0;

    if (has) *n -= k + 1;
    return has;
}

#define CONVERT "convert it to JSON lines (DuckDB, pyarrow or Hugging Face's datasets do)"
#define EXTRACT "unpack it and give the texts in it"
#define UNPACK "decompress it, or pack it with zstd, gzip, xz or bzip2"
#define ICONV(from) "iconv -f " from " -t UTF-8 makes text of it"
#define TEXT_OF "what text there is in it must be got out first"
#define PANDOC "pandoc -t plain makes text of it"
#define NOTEBOOK "jupyter nbconvert --to markdown makes text of it"

/* Written as text, but not to be read: what stands between the words is the format's. */
static const struct {
    const char *ending, *what, *way;
} foreign_names[] = {
    {"csv", "a table (CSV)", CONVERT},
    {"tsv", "a table (TSV)", CONVERT},
    {"xml", "XML", TEXT_OF},
    {"html", "HTML", PANDOC},
    {"htm", "HTML", PANDOC},
    {"xhtml", "HTML", PANDOC},
    {"svg", "an image (SVG)", TEXT_OF},
    {"rtf", "RTF", PANDOC},
    {"ps", "PostScript", "ps2ascii makes text of it"},
    {"eps", "PostScript", "ps2ascii makes text of it"},
    {"ipynb", "a Jupyter notebook", NOTEBOOK},
    {"pkl", "a Python pickle", CONVERT},
    {"pickle", "a Python pickle", CONVERT},
};

text_name text_name_of(const char *path)
{
    static const struct {
        const char *ending;
        packing packed;
    } packings[] = {{"gz", PACKED_GZIP},   {"gzip", PACKED_GZIP}, {"bgz", PACKED_GZIP},
                    {"zst", PACKED_ZSTD},  {"zstd", PACKED_ZSTD}, {"xz", PACKED_XZ},
                    {"lzma", PACKED_LZMA}, {"bz2", PACKED_BZIP2}, {"bzip2", PACKED_BZIP2}};
    static const struct {
        const char *ending;
        name_kind kind;
    } kinds[] = {{"txt", NAME_TEXT},
                 {"text", NAME_TEXT},
                 {"md", NAME_TEXT},
                 {"markdown", NAME_TEXT},
                 {"jsonl", NAME_JSON_LINES},
                 {"ndjson", NAME_JSON_LINES},
                 {"jsonlines", NAME_JSON_LINES},
                 {"json-lines", NAME_JSON_LINES},
                 {"ldjson", NAME_JSON_LINES},
                 {"json", NAME_JSON}};
    text_name name = {.kind = NAME_OTHER, .packed = PACKED_NOT};
    size_t n = strlen(path);

    for (size_t i = 0; i < sizeof packings / sizeof *packings && name.packed == PACKED_NOT; i++)
        if (takes_ending(path, &n, packings[i].ending)) name.packed = packings[i].packed;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && name.kind == NAME_OTHER; i++)
        if (takes_ending(path, &n, kinds[i].ending)) name.kind = kinds[i].kind;
    for (size_t i = 0; i < sizeof foreign_names / sizeof *foreign_names && name.kind == NAME_OTHER; i++)
        if (takes_ending(path, &n, foreign_names[i].ending))
            name = (text_name){NAME_FOREIGN, name.packed, foreign_names[i].what, foreign_names[i].way};
    return name;
}

byte_counts text_count_bytes(const char *head, size_t n_bytes)
{
    const unsigned char *p = (const unsigned char *)head;
    byte_counts c = {.n = n_bytes};

    for (size_t i = 0; i < n_bytes; i++) {
        c.nul += p[i] == 0;
        c.control += p[i] != 0 && p[i] < 0x20 && !strchr("\t\n\v\f\r\b\x1b", p[i]);
        c.high += p[i] >= 0x80;
        c.high_runs += p[i] >= 0x80 && (i == 0 || p[i - 1] < 0x80);
    }
    for (size_t i = 0; i < n_bytes;) {
        const int length = utf8_length(head + i, n_bytes - i);
        c.characters += length > 1;
        if (length < 0 && n_bytes - i > 3) c.invalid += (size_t)-length; /* the last may be cut by the head's end */
        i += (size_t)(length < 0 ? -length : length);
    }
    return c;
}

/* A text may begin so, too: most names count only where some of the first 512 bytes are no text's, the shortest where
 * the whole head is none. */
typedef enum { ALWAYS, WITH_ODD_BYTES, IN_BINARY } magic_strength;

// clang-format off
static const struct {
    const char *bytes, *name, *way;
    unsigned short n, at;
    magic_strength strength;
} magics[] = {
#define AT(at, bytes, name, way) {bytes, name, way, sizeof bytes - 1, at, WITH_ODD_BYTES}
#define IS(bytes, name, way) AT(0, bytes, name, way)
#define WEAK(bytes, name, way) {bytes, name, way, sizeof bytes - 1, 0, IN_BINARY}
#define SURE(bytes, name, way) {bytes, name, way, sizeof bytes - 1, 0, ALWAYS}
    SURE("version https://git-lfs", "a Git LFS pointer", "git lfs pull fetches the file itself"),
    IS("PAR1", "Apache Parquet", CONVERT),
    IS("PARE", "encrypted Apache Parquet", CONVERT),
    IS("ARROW1", "Apache Arrow (Feather)", CONVERT),
    IS("FEA1", "Feather", CONVERT),
    IS("\xff\xff\xff\xff", "an Apache Arrow stream", CONVERT),
    IS("Obj\1", "Apache Avro", CONVERT),
    IS("ORC", "Apache ORC", CONVERT),
    IS("SQLite format 3\0", "an SQLite database", CONVERT),
    IS("\x89HDF\r\n\x1a\n", "HDF5 (token shards are read by moai_train)", CONVERT),
    IS("\x93NUMPY", "a NumPy array", CONVERT),
    AT(16, "\xde\xc0\xef\xbe", "an LMDB database", CONVERT),
    IS("\x80\2", "a Python pickle", CONVERT),
    IS("\x80\3", "a Python pickle", CONVERT),
    IS("\x80\4", "a Python pickle", CONVERT),
    IS("\x80\5", "a Python pickle", CONVERT),
    IS("GGUF", "a GGUF model", TEXT_OF),
    IS("PK\3\4", "a zip archive (.docx, .xlsx, .npz and PyTorch files are such)", EXTRACT),
    IS("PK\5\6", "an empty zip archive", EXTRACT),
    IS("PK\7\x08", "a zip archive", EXTRACT),
    AT(257, "ustar", "a tar archive", EXTRACT),
    IS("7z\xbc\xaf\x27\x1c", "a 7z archive", EXTRACT),
    IS("Rar!\x1a\7", "a RAR archive", EXTRACT),
    IS("MSCF\0\0\0\0", "a cabinet archive", EXTRACT),
    SURE("!<arch>\n", "an ar archive", EXTRACT),
    IS("xar!", "a xar archive", EXTRACT),
    IS("070701", "a cpio archive", EXTRACT),
    IS("070707", "a cpio archive", EXTRACT),
    IS("\x04\x22\x4d\x18", "lz4", UNPACK),
    IS("\x02\x21\x4c\x18", "lz4", UNPACK),
    IS("\xff\6\0\0sNaPpY", "snappy", UNPACK),
    IS("LZIP\1", "lzip", UNPACK),
    IS("\x89LZO\0\r\n\x1a\n", "lzop", UNPACK),
    IS("\x1f\x9d", "compress (.Z)", UNPACK),
    IS("\x1f\x9e", "pack or freeze", UNPACK),
    IS("\x1f\xa0", "compress -H", UNPACK),
    IS("\x1e\xb5\x2f\xfd", "zstd of before 0.8", UNPACK),
    IS("\x27\xb5\x2f\xfd", "zstd of before 0.8", UNPACK),
    WEAK("x\x01", "zlib data", UNPACK),
    WEAK("x\x9c", "zlib data", UNPACK),
    WEAK("x\xda", "zlib data", UNPACK),
    IS("\xff\xfe\0\0", "UTF-32", ICONV("UTF-32")),
    IS("\0\0\xfe\xff", "UTF-32", ICONV("UTF-32")),
    IS("\xff\xfe", "UTF-16", ICONV("UTF-16")),
    IS("\xfe\xff", "UTF-16", ICONV("UTF-16")),
    IS("\x84\x31\x95\x33", "GB18030", ICONV("GB18030")),
    IS("\xdd\x73\x66\x73", "UTF-EBCDIC", ICONV("UTF-EBCDIC")),
    IS("\x7f" "ELF", "a program or library (ELF)", TEXT_OF),
    WEAK("MZ", "a program for Windows or DOS", TEXT_OF),
    IS("\xfe\xed\xfa\xce", "a program (Mach-O)", TEXT_OF),
    IS("\xfe\xed\xfa\xcf", "a program (Mach-O)", TEXT_OF),
    IS("\xce\xfa\xed\xfe", "a program (Mach-O)", TEXT_OF),
    IS("\xcf\xfa\xed\xfe", "a program (Mach-O)", TEXT_OF),
    IS("\xca\xfe\xba\xbe", "Java byte code or a program (Mach-O)", TEXT_OF),
    IS("\0asm", "WebAssembly", TEXT_OF),
    IS("\x89PNG\r\n\x1a\n", "an image (PNG)", TEXT_OF),
    IS("\xff\xd8\xff", "an image (JPEG)", TEXT_OF),
    IS("GIF87a", "an image (GIF)", TEXT_OF),
    IS("GIF89a", "an image (GIF)", TEXT_OF),
    AT(8, "WEBP", "an image (WebP)", TEXT_OF),
    IS("II*\0", "an image (TIFF)", TEXT_OF),
    IS("MM\0*", "an image (TIFF)", TEXT_OF),
    WEAK("BM", "an image (BMP)", TEXT_OF),
    IS("\0\0\1\0", "an icon", TEXT_OF),
    SURE("%PDF-", "PDF", "pdftotext makes text of it"),
    IS("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", TEXT_OF),
    IS("AT&TFORM", "DjVu", "djvutxt makes text of it"),
    IS("RIFF", "sound or video (RIFF)", TEXT_OF),
    WEAK("ID3", "sound (MP3)", TEXT_OF),
    IS("OggS", "sound or video (Ogg)", TEXT_OF),
    IS("fLaC", "sound (FLAC)", TEXT_OF),
    IS("\x1a\x45\xdf\xa3", "a video (Matroska)", TEXT_OF),
    AT(4, "ftyp", "a video (MP4) or image (HEIF)", TEXT_OF),
};
// clang-format on

const char *text_markup(const char *head, size_t n, const char **way)
{
    static const struct {
        const char *begin, *name, *way;
    } kinds[] = {{"WARC/", "web archive records (WARC)", TEXT_OF},
                 {"<?xml", "XML", TEXT_OF},
                 {"<mediawiki", "a dump of MediaWiki (XML)", "wikiextractor --json makes JSON lines of it"},
                 {"<!doctype html", "HTML", PANDOC},
                 {"<html>", "HTML", PANDOC},
                 {"<html ", "HTML", PANDOC},
                 {"{\\rtf", "RTF", PANDOC},
                 {"%!PS", "PostScript", "ps2ascii makes text of it"},
                 {"(lp0\n", "a Python pickle", CONVERT},
                 {"(dp0\n", "a Python pickle", CONVERT},
                 {"(lp1\n", "a Python pickle", CONVERT},
                 {"(dp1\n", "a Python pickle", CONVERT},
                 {"ccopy_reg\n", "a Python pickle", CONVERT}};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (n > strlen(kinds[i].begin) && strncasecmp(head, kinds[i].begin, strlen(kinds[i].begin)) == 0) {
            *way = kinds[i].way;
            return kinds[i].name;
        }
    return NULL;
}

/* The packings that are read, where they stand inside another. */
static const char *packed_again(const char *head, size_t n)
{
    const packing p = packing_of(head, n);
    return p == PACKED_NOT ? NULL : packing_name(p);
}

/* Many zeros in the one half, few in the other; or some and none: what is not ASCII has few. */
static bool is_wide(size_t zeros, size_t others, size_t pairs)
{
    return (zeros > 1 && 5 * zeros > 2 * pairs && 20 * others <= pairs) ||
           (others == 0 && zeros > 3 && (zeros > 7 || 20 * zeros > pairs));
}

/* The zeros at each place of the units that are not all zeros, which are no characters; how many units these are. */
static size_t count_zeros(const char *head, size_t n, size_t unit, size_t zeros[4])
{
    size_t n_units = 0;

    for (size_t i = 0; i + unit <= n; i += unit) {
        if (memcmp(head + i, "\0\0\0", unit) == 0) continue;
        for (size_t k = 0; k < unit; k++) zeros[k] += head[i + k] == 0;
        n_units++;
    }
    return n_units;
}

/* UTF-16 and UTF-32 without a byte order mark: what is ASCII in them has NULs at one byte of two, or three of four. */
static const char *wide_characters(const char *head, size_t n)
{
    size_t of_four[4] = {0}, of_two[4] = {0};
    const size_t words = count_zeros(head, n, 4, of_four), pairs = count_zeros(head, n, 2, of_two);

    if (words && 10 * of_four[3] > 9 * words && 10 * of_four[2] > 9 * words) return "UTF-32LE";
    if (words && 10 * of_four[0] > 9 * words && 10 * of_four[1] > 9 * words) return "UTF-32BE";
    if (is_wide(of_two[1], of_two[0], pairs)) return "UTF-16LE";
    return is_wide(of_two[0], of_two[1], pairs) ? "UTF-16BE" : NULL;
}

/* The first header of a tar archive, old ones too, which have no mark: its bytes add up to what it says in octal. */
static bool is_tar(const char *head, size_t n)
{
    enum { HEADER = 512, SUM = 148, SUM_BYTES = 8 };
    char digits[SUM_BYTES + 1] = "", *end;
    long sum = ' ' * SUM_BYTES;

    if (n < HEADER) return false;
    memcpy(digits, head + SUM, SUM_BYTES);
    for (int i = 0; i < HEADER; i++) sum += i < SUM || i >= SUM + SUM_BYTES ? (unsigned char)head[i] : 0;
    return head[0] && strtol(digits, &end, 8) == sum && end > digits;
}

static bool is_safetensors(const char *head, size_t n)
{
    return n > 9 && head[8] == '{' && head[9] == '"' && memcmp(head + 5, "\0\0\0", 3) == 0;
}

const char *text_foreign(const char *head, size_t n, const char **way)
{
    const byte_counts c = text_count_bytes(head, n), first = text_count_bytes(head, n < 512 ? n : 512);
    const bool mostly_bad = 100 * (c.control + c.invalid) > MOSTLY_BAD_PERCENT * n;
    const bool nuls = c.nul > n / 1000 || (c.nul > 0 && c.invalid > 0);
    const bool binary = nuls || mostly_bad, odd = first.nul + first.control + first.invalid > 0;
    const char *name = packed_again(head, n);

    *way = "decompress it once";
    if (name) return name;
    *way = TEXT_OF;
    if (is_safetensors(head, n)) return "safetensors";
    if (c.nul == n) {
        *way = "what should be there is lost, or was never written";
        return "nothing but NUL bytes";
    }
    if (nuls && is_tar(head, n)) {
        *way = EXTRACT;
        return "a tar archive";
    }
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        if (magics[i].at + (size_t)magics[i].n > n || memcmp(head + magics[i].at, magics[i].bytes, magics[i].n) != 0)
            continue;
        if (magics[i].strength > (binary ? IN_BINARY : odd ? WITH_ODD_BYTES : ALWAYS)) continue;
        *way = magics[i].way;
        return magics[i].name;
    }
    if (memmem(head, n, "\x1b$B", 3)) {
        *way = ICONV("ISO-2022-JP");
        return "ISO-2022-JP";
    }
    if (!binary) return NULL;
    name = nuls ? wide_characters(head, n) : NULL;
    if (name) {
        *way = "iconv -f ... -t UTF-8 makes text of it";
        return name;
    }
    if (nuls) {
        *way = 100 * (c.control + c.invalid) > n ? "if it is packed, as Brotli is without a mark of its own, unpack it"
                                                 : "if it is text, tr -d '\\000' takes the NUL bytes out";
        return "binary data: it holds NUL bytes";
    }
    *way = "if it is text in another encoding (GBK, Shift JIS, Windows-1251, ...), iconv -f ... -t UTF-8 converts it";
    return "not UTF-8 for the most part";
}

/* Latin-1 has single letters from 0x80 on between ASCII ones, and no characters of UTF-8. */
const char *text_encoding_hint(const byte_counts *c)
{
    if (c->characters > c->invalid / 8 || c->high == 0) return "";
    if (2 * c->high <= 3 * c->high_runs && 4 * c->high < c->n)
        return "; it looks like Latin-1 or Windows-1252, which iconv -f WINDOWS-1252 -t UTF-8 converts";
    return "; it looks like another encoding, which iconv -f ... -t UTF-8 converts";
}
