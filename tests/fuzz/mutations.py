"""Mutations of the content of files: of bytes, chunks, lines, and of what YAML, JSON, safetensors and torch nest."""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import safetensors.torch
import torch
import yaml

PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of such a file
Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
WORDS = (
    *(
        "null",
        "~",
        "nan",
        ".nan",
        ".inf",
        "-.inf",
        "1e999",
        "1e-999",
        "-1",
        "0",
        "1.5",
        "9" * 400,
        "0x10",
        "1:30",
        "no",
    ),
    *("''", "'", '"', "[", "]", "{", "}", "[" * 200, "{a: " * 200, "&a [*a, *a]", "!!python/object/apply:os.getcwd []"),
    *("%YAML 9.9", "---", "...", "- ", ": ", "#", "\t", "|", "?", "../../x", "/", "/dev/zero", "~nobody/x", ".", "*"),
    *("a\0b", "\x1b[31m", "\u202e", "é", "测试", "\ufeff", "\r", "\u2028", "\x85", "x" * 5000, "1 2 3 4 5 6 7 8"),
    *("<!DOCTYPE a [<!ENTITY b 'b'><!ENTITY c '&b;&b;'>]>", "&c;", "<a>" * 200, "</object>", "<object/>"),
)
VALUES = (
    *(None, True, False, -1, 0, 1, 2, 3, 0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), 2**31, 2**63, 10**400),
    *("", "no", "x" * 300, "../x", "/dev/zero", "~nobody", "a\0b", "\x1b[2J", "\u202e", "测试", "{}", "a: b\n"),
    *([], {}, [[]], [None], {"a": {"b": []}}, [1, "a", 2.5], {"": 0}, {"step": 1, "kind": "x"}, [0] * 50),
)
TENSORS: Sequence[Callable[[torch.Tensor], Any]] = (
    *(lambda tensor, value=value: torch.full_like(tensor, value) for value in (0, 1, -1, 100)),
    *(lambda tensor, value=value: torch.full(tensor.shape, value) for value in (float("nan"), float("inf"), 1e38)),
    *(
        lambda tensor, kind=kind: tensor.to(kind)
        for kind in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    ),
    *(lambda tensor: tensor.flatten()[:0], lambda tensor: tensor[None].clone(), lambda tensor: tensor.flatten()[:1]),
    *(lambda tensor: tensor.flatten().clone(), lambda tensor: torch.cat([tensor.flatten()] * 2), torch.zeros_like),
)
# What a file of torch can hold besides, but safetensors can not.
ODD_TENSORS: Sequence[Callable[[torch.Tensor], Any]] = (
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor if tensor.is_meta else tensor.to_sparse(),
    lambda tensor: torch.zeros(1).expand(2**20, 2**20),
    lambda tensor: torch.nn.Parameter(tensor.float()),
    lambda tensor: torch.empty(tensor.shape, device="meta"),
)


def change_bytes(draw: Random, content: bytes) -> bytes:
    """Change some bytes, more often those of the header; lengths and numbers in it then lie."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(min(len(data), draw.choice((16, 64, 256, 10**9))) + 1)
        end = min(at + draw.choice((1, 2, 4, 16, 200)), len(data))
        number = (draw.choice(NUMBERS) + draw.choice((0, 0, 0, 1, -1))) % 2**64
        width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
        match draw.choice(("flip", "flip", "number", "number", "cut", "delete", "insert", "repeat", "zero")):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case "number":
                data[at : at + width] = (number % 256**width).to_bytes(width, order)
            case "cut":
                del data[at:]
            case "delete":
                del data[at:end]
            case "insert":
                data[at:at] = draw.randbytes(end - at)
            case "repeat":
                data[at:at] = data[at:end] * draw.choice((1, 2, 50))
            case "zero":
                data[at:end] = bytes(end - at)
    return bytes(data)


def change_chunks(draw: Random, content: bytes) -> bytes:
    """Change a chunk of a PNG file, or its place, and keep lengths and checksums right."""
    chunks, at = [], len(PNG)
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    index = draw.randrange(len(chunks))
    name, body = chunks[index]
    match draw.choice(("body", "body", "body", "pixels", "remove", "repeat", "name", "swap")):
        case "body":
            chunks[index] = name, change_bytes(draw, body)
        case "pixels":  # of a length that the header does not promise
            chunks = [
                (name, zlib.compress(change_bytes(draw, zlib.decompress(body)))) if name == b"IDAT" else (name, body)
                for name, body in chunks
            ]
        case "remove":
            del chunks[index]
        case "repeat":
            chunks[index:index] = [(name, body)] * draw.choice((1, 2, 50))
        case "name":
            chunks[index] = draw.choice((b"PLTE", b"tRNS", b"eXIf", b"acTL", b"iCCP", b"zTXt", b"gAMA")), body
        case "swap":
            draw.shuffle(chunks)
    return PNG + b"".join(png_chunk(*part) for part in chunks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Write a chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def change_lines(draw: Random, content: bytes) -> bytes:
    """Change lines and words of a text, or its encoding."""
    lines = content.decode().splitlines(keepends=True) or [""]
    for _ in range(draw.choice((1, 1, 2, 5))):
        at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
        words = lines[at].split(" ")
        match draw.choice(
            ("word", "word", "word", "odd", "remove", "repeat", "swap", "indent", "join", "cut", "insert")
        ):
            case "word":
                words[draw.randrange(len(words))] = draw.choice(WORDS)
                lines[at] = " ".join(words).rstrip("\n") + "\n"
            case "odd":
                lines.insert(at, draw.choice(WORDS) + "\n")
            case "remove" if len(lines) > 1:
                del lines[at]
            case "repeat":
                lines[at] *= draw.choice((2, 2, 300))
            case "swap":
                lines[at], lines[other] = lines[other], lines[at]
            case "indent":
                lines[at] = " " * draw.randrange(1, 5) + lines[at]
            case "join":
                lines[at] = lines[at].rstrip("\n")
            case "cut":
                lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
            case "insert":
                place = draw.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + draw.choice(WORDS) + lines[at][place:]
    text = "".join(lines)
    if draw.random() < 0.1:
        return text.encode(draw.choice(("utf-16", "utf-8-sig", "utf-32-be", "cp037")), errors="replace")
    return text.encode()


def change_nested(draw: Random, content: Any, odd: Callable[[Any], Any]) -> Any:
    """Replace, remove, repeat, move or wrap something at any depth of nested lists and mappings, in place.

    Args:
        odd: Returns what takes the place of a value; it is copied, as is all that moves.
    """
    places = list(_places(content))
    if not places or draw.random() < 0.02:
        return deepcopy(odd(content))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        holder, key = draw.choice(places)
        if key not in (holder if isinstance(holder, dict) else range(len(holder))):
            continue  # the change before has removed it
        value = holder[key]
        match draw.choice(("odd", "odd", "odd", "odd", "remove", "other", "wrap", "add")):
            case "odd":
                holder[key] = deepcopy(odd(value))
            case "remove":
                del holder[key]
            case "other":
                donor, name = draw.choice(places)
                holder[key] = deepcopy(donor.get(name) if isinstance(donor, dict) else (donor or [None])[-1])
            case "wrap":
                holder[key] = draw.choice(([value], {"a": value}, str(value)[:1000]))
            case "add" if isinstance(holder, dict):
                holder[draw.choice(("", "a", f"{key}x", "__class__"))] = deepcopy(value)
            case "add":
                holder.append(deepcopy(value))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in nested lists and mappings: what holds it, and its key there."""
    if isinstance(content, (dict, list)):
        for key, value in list(content.items()) if isinstance(content, dict) else list(enumerate(content)):
            yield content, key
            yield from _places(value)


def change_yaml(draw: Random, content: bytes) -> bytes:
    """Change values and keys of a YAML file."""
    changed = change_nested(draw, yaml.safe_load(content), lambda value: draw.choice(VALUES))
    return yaml.dump(changed, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()


def change_json_lines(draw: Random, content: bytes) -> bytes:
    """Change values and keys in a line of a file of JSON lines."""
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    row = change_nested(draw, json.loads(lines[at]), lambda value: draw.choice(VALUES))
    lines[at] = json.dumps(row).encode()
    return b"\n".join(lines) + b"\n"


def change_saved(draw: Random, content: bytes) -> bytes:
    """Change tensors and plain values in a file of torch."""

    def odd(value: Any) -> Any:
        changes = [*TENSORS, *ODD_TENSORS]
        return (
            draw.choice(changes)(value)
            if isinstance(value, torch.Tensor) and draw.random() < 0.8
            else draw.choice(VALUES)
        )

    file = io.BytesIO()
    torch.save(change_nested(draw, torch.load(io.BytesIO(content)), odd), file)
    return file.getvalue()


def change_header(draw: Random, content: bytes) -> bytes:
    """Change the description of the tensors in a safetensors file, whose bytes stay."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    kinds = ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X")
    odd = change_nested(draw, header, lambda value: draw.choice(kinds if isinstance(value, str) else VALUES))
    text = json.dumps(odd).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def change_tensors(draw: Random, content: bytes) -> bytes:
    """Change tensors in a safetensors file, which stays whole."""
    tensors = safetensors.torch.load(content)
    for name in draw.sample(sorted(tensors), draw.choice((1, 1, 2, len(tensors)))):
        match draw.choice(("change", "change", "change", "remove", "rename", "one value")):
            case "change":
                tensors[name] = draw.choice(TENSORS)(tensors[name]).contiguous()
            case "remove":
                del tensors[name]
            case "rename":
                tensors[draw.choice(("", "a", "\x1b[31m", "测试", name + ".x"))] = tensors.pop(name)
            case "one value" if tensors[name].is_floating_point() and tensors[name].numel():
                tensors[name].view(-1)[0] = draw.choice((float("nan"), float("inf"), -1e38, 1e-45))
    return safetensors.torch.save(tensors)


class _Dumper(yaml.SafeDumper):
    """Writes a value in full each time it occurs."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_IMAGE, _TEXT = (change_bytes,), (change_lines, change_lines, change_bytes)
MUTATIONS: dict[str, Sequence[Mutation]] = {
    **dict.fromkeys((".jpg", ".bmp", ".tif", ".webp", ".pgm", ".ppm"), _IMAGE),
    ".png": (change_bytes, change_chunks, change_chunks),
    **dict.fromkeys((".txt", ".xml", ".written"), _TEXT),
    ".json": (change_json_lines, change_json_lines, change_bytes),
    ".yaml": (change_lines, change_yaml, change_yaml, change_yaml, change_bytes),
    ".jsonl": (change_lines, change_json_lines, change_bytes),
    ".pt": (change_bytes, change_saved, change_saved, change_saved),
    ".safetensors": (change_bytes, change_header, change_tensors, change_tensors),
}
"""The mutations of the files with a suffix; one that is listed more often is drawn more often."""
