"""tests/golden/chat.json: conversations as Hugging Face's apply_chat_template writes them with Qwen's templates, and the ids
and masks that TRL trains on, by tests/golden/bpe.  pip install transformers trl; python3 make_chat.py"""

import json
import os
import random

import trl
from transformers import PreTrainedTokenizerFast

here = os.path.dirname(os.path.abspath(__file__))
folder = os.path.join(os.path.dirname(trl.__file__), "chat_templates")
tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(here, "bpe", "tokenizer.json"), eos_token="<|endoftext|>")
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def template(name):
    with open(os.path.join(folder, name + ".jinja"), encoding="utf-8") as f:
        return f.read()


MODELS = {"qwen3": template("qwen3"), "qwen3-instruct": template("qwen3_instruct_2507"), "qwen2.5": template("qwen2_5"),
          "chatml": CHATML}
TRAINED = {"qwen3": template("qwen3_training"), "qwen2.5": template("qwen2_5_training")}
TOOLS = [
    [{"type": "function", "function": {"name": "weather", "description": "in “Köln”\n\t<b>"}}],
    [{"type": "function", "function": {"name": "add", "parameters": {"a": 1.0, "b": 1e5, "c": -0.25, "d": 1e-7, "e": 1e22, "f": None,
                                                                     "g": True, "h": [], "i": {}, "j": [1, "\u2028\u007f/\\\""]}}},
     {"name": "bare", "description": "字"}],
]
TEXTS = ["Hello", "What is 2+2?", "", "\n\nleading", "trailing\n\n", "naïve 世界 e\u0301", "a <|im_end|> b", "code:\n```c\nint x;\n```",
         "  spaces  ", "<tool_response>no</tool_response>", "It's DON'T", "\nnewline first", "👍🏽 ok", "x" * 20]
THOUGHTS = [None, None, "Let me think.\nTwo and two.", "\n\nthought with newlines\n\n", "", "世界"]


def conversations():
    r = random.Random(4)
    for number in range(72):
        messages, tools = [], r.choice(TOOLS) if number % 4 == 0 else None
        if r.random() < 0.5:
            messages.append({"role": "system", "content": r.choice(TEXTS)})
        for _ in range(r.randint(1, 3)):
            messages.append({"role": "user", "content": r.choice(TEXTS)})
            for step in range(r.randint(0, 2) if tools else 0):
                call = [{"type": "function", "function": {"name": r.choice(["weather", "add"]), "arguments": r.choice(
                    [{"city": "Köln", "n": 1.50}, {}, {"a": [1, 2], "b": {"c": "d\"e"}}])}} for _ in range(r.randint(1, 2))]
                m = {"role": "assistant", "content": r.choice(["", "Let me see."]), "tool_calls": call}
                if r.random() < 0.4:
                    m["reasoning_content"] = r.choice(THOUGHTS[2:])
                messages.append(m)
                messages += [{"role": "tool", "content": r.choice(["42", "sunny\n", ""])} for _ in call]
            m = {"role": "assistant", "content": r.choice(TEXTS)}
            thought = r.choice(THOUGHTS)
            if thought is not None and number % 2:
                m["reasoning_content"] = thought
            elif thought:
                m["content"] = r.choice(["", "\n"]) + "<think>" + "\n" + thought + "\n</think>\n\n" + m["content"]
            messages.append(m)
        yield {"messages": messages, **({"tools": tools} if tools else {})}


def asked(c, name, **more):
    messages = c["messages"]
    while messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return {"messages": messages, "text": tokenizer.apply_chat_template(
        messages, tools=c.get("tools"), chat_template=MODELS[name], tokenize=False, add_generation_prompt=True, **more)}


rows = []
for number, c in enumerate(conversations()):
    row = {"line": json.dumps(c, ensure_ascii=number % 2 == 0), "texts": {}, "trained": {}}
    for name, text in MODELS.items():
        if name == "chatml" and ("tools" in c or any("tool_calls" in m for m in c["messages"])):
            continue
        row["texts"][name] = tokenizer.apply_chat_template(c["messages"], tools=c.get("tools"), chat_template=text, tokenize=False)
    for name, text in TRAINED.items():
        if "<|im_end|>" in json.dumps(c["messages"]):      # for us text, for Hugging Face the token
            continue
        made = tokenizer.apply_chat_template(c["messages"], tools=c.get("tools"), chat_template=text, return_dict=True,
                                             return_assistant_tokens_mask=True)
        row["trained"][name] = {"ids": made["input_ids"], "mask": "".join(map(str, made["assistant_masks"]))}
    if number % 8 == 0:
        row["asks"] = [{"template": n, "thinks": thinks, **asked(c, n, enable_thinking=thinks)}
                       for n in MODELS if n in row["texts"] for thinks in (True, False)]
        for a in row["asks"]:
            a["line"] = json.dumps({"messages": a.pop("messages"), **({"tools": c["tools"]} if "tools" in c else {})})
    rows.append(row)
with open(os.path.join(here, "chat.json"), "w") as f:
    json.dump(rows, f, separators=(",", ":"))
print(len(rows), "conversations", os.path.getsize(os.path.join(here, "chat.json")), "bytes")
