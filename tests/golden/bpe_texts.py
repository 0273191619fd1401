"""Texts on which tokenizers differ: all scripts, whitespace, numbers, code, emoji, what form C changes, special names."""

import random


def texts(n, seed=1):
    r = random.Random(seed)
    words = ("the quick brown fox don't I'll we've you're he'd it's DON'T WE'VE 's 'S 'll 'LL ſ 'ſ I'm I'M naïve café "
             "über Straße œuvre Привет мир здравствуй こんにちは 世界 日本語 カタカナ ガ が 한국어 안녕 ᄒ ᅡ ᆫ 你好 中文 测试 "
             "مرحبا بالعالم שלום हिन्दी क्षत्रिय ไทย ภาษา ελληνικά Ω Å ﬁ ① ² ½ ٣ ۴ १२३ 𝟙𝟚 Ⅷ "
             "😀 👨‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️ e\u0301 a\u030a\u0323 o\u0302\u0301 \u0344 \u212b \u2126 \u0958 \ufb1d "
             "def main(): return x[0] += 1; // ok /* no */ #include <stdio.h> \t\t if(a&&b){} "
             "http://a.b/c?d=e&f=%20 user@example.com 3.14159 1,000,000 0x1F 2026-11-26 12345678901234567890 "
             "<|im_start|> <|im_end|> <|endoftext|> <think> </think> <tool_call> </tool_call> <|im_ <think").split(" ")
    spaces = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", " \n", "\n ", "\t", " \t ", "\u00a0", "\u3000", "\u2028",
              "\u0085", "\u180e", "\u200b", "\v", "\f", "", ""]
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80), (0x1100, 0x1200),
              (0x1E00, 0x2100), (0x2100, 0x2C00), (0x3000, 0x3200), (0x4E00, 0x9FA0), (0xAC00, 0xD7A4), (0xF900, 0xFB50),
              (0x1D100, 0x1D800), (0x1F300, 0x1F700), (0x20000, 0x20100)]

    def one():
        kind = r.random()
        if kind < 0.6:
            return "".join(r.choice(words) + r.choice(spaces) for _ in range(r.randint(1, 40)))
        if kind < 0.85:
            low, high = r.choice(ranges)
            return "".join(chr(r.randrange(low, high)) if r.random() < 0.85 else r.choice(spaces)
                           for _ in range(r.randint(1, 60)))
        if kind < 0.95:
            out = []
            for _ in range(r.randint(1, 50)):
                c = r.randrange(1, 0x30000)
                out.append(chr(c) if not 0xD800 <= c < 0xE000 else " ")
            return "".join(out)
        return r.choice(["a", " ", "\n", "é", "字", "1", "ab", "'"]) * r.randint(1, 3000) + r.choice(["", " ", "x"])

    return [one() for _ in range(n)]
