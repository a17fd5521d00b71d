"""Words that are in nothing else, and the search for them in every spelling; see `canary.py` beside it."""

import base64
import os
import pathlib
import re
import secrets

# Beyond this a file is no text of ours: a model, a program. It is searched all the same, in pieces of this size.
PIECE = 8 << 20


class Mark:
    """A word of one kind, which stands in every field of its kind together with the field's name."""

    def __init__(self, kind):
        self.kind = kind
        # What stands before the common letters tells two words apart where one is cut.
        self.word = secrets.token_hex(2) + "cnry" + secrets.token_hex(8)

    def of(self, field):
        """The word in a text that says where it stood, with letters that are written otherwise in an address."""
        return f"{self.word}+/{field}"

    def name(self, field):
        """The word in a name: of a folder, a bucket, an account."""
        return f"{self.word}-{field}"


def spellings(word):
    """How a word may be written: plain, in hex, in an address, in two bytes a letter, in base64 wherever it begins there."""
    raw = word.encode()
    found = {raw, raw.upper(), raw.hex().encode(), raw.hex().upper().encode()}
    found |= {"".join(f"%{byte:02{form}}" for byte in raw).encode() for form in "xX"}
    found |= {word.encode("utf-16-le"), word.encode("utf-16-be")}
    for lead in range(3):
        padded = b"x" * lead + raw
        for text in (base64.b64encode(padded), base64.urlsafe_b64encode(padded)):
            found.add(text[-(-lead * 8 // 6):len(padded) * 8 // 6])
    return found


class Search:
    """What was looked through, and where which word was found that must not be there."""

    def __init__(self):
        self.patterns, self.places, self.bytes = {}, 0, 0
        self.leaks = {}

    def look_for(self, kind, word):
        self.patterns.setdefault(kind, set()).update(spellings(word))

    def kinds_in(self, data):
        """Which kinds of words are in these bytes, each with what stands round the first of them."""
        found = {}
        for kind, patterns in self.patterns.items():
            hit = re.search(b"|".join(re.escape(pattern) for pattern in sorted(patterns)), data)
            if hit:
                near = data[max(0, hit.start() - 100):hit.end() + 60]
                found[kind] = near.decode("utf-8", "replace").encode("unicode_escape").decode()
        return found

    def bytes_of(self, place, data, may_hold=()):
        """Looks through these; returns the kinds that were found, whether they may be there or not."""
        self.places += 1
        self.bytes += len(data)
        found = self.kinds_in(data)
        for kind, near in found.items():
            if kind not in may_hold:
                self.leaks.setdefault((kind, place), near)
        return set(found)

    def text(self, place, text, may_hold=()):
        return self.bytes_of(place, text.encode("utf-8", "surrogateescape"), may_hold)

    def file(self, path, may_hold=()):
        found = self.text(f"the name {path}", str(path), may_hold)
        try:
            if path.is_symlink():
                return found | self.text(f"the link {path}", os.readlink(path), may_hold)
            if not path.is_file():
                return found
            with open(path, "rb") as file:
                rest = b""
                while piece := file.read(PIECE):
                    found |= self.bytes_of(str(path), rest + piece, may_hold)
                    rest = piece[-200:]
        except FileNotFoundError:
            # It went between the look and the reading, as caches do while a job runs.
            pass
        return found

    def folder(self, folder, may_hold=(), leave_out=(), since=0.0):
        """Every file below a folder and its name; with `since` only what was written or moved there after that."""
        found = set()
        for parent, folders, files in os.walk(folder):
            here = pathlib.Path(parent)
            folders[:] = [name for name in folders if here / name not in leave_out]
            for path in (here / name for name in folders + files):
                try:
                    status = path.lstat()
                except FileNotFoundError:
                    continue
                if max(status.st_mtime, status.st_ctime) >= since:
                    found |= self.file(path, may_hold)
        return found
