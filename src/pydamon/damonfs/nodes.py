"""Files and directories in memory that answer as sysfs does: the values are in the files themselves.

Nothing here knows DAMON. Whatever is refused is an OSError with the kernel's error number.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydamon.damonfs import formats
from pydamon.damonfs.formats import fail

PAGE_SIZE = 4096  # what one write or one read of a sysfs file may carry
DIRECTORY_MODE = 0o755


class Node:
    """Anything in the tree. ``removed``: it was taken out; whoever still has it open gets ENODEV."""

    __slots__ = ("mode", "removed")

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.removed = False


class File(Node):
    """A file. One write is one command: it is taken as a whole or refused."""

    __slots__ = ()

    def show(self) -> str:
        """What a reader sees."""
        fail(errno.EIO)

    def store(self, data: bytes) -> None:
        """Take what was written; raises OSError and changes nothing."""
        fail(errno.EIO)

    def read(self) -> bytes:
        """The content, at most a page."""
        self._check(0o400, errno.EIO)
        return self.show().encode("latin-1")[:PAGE_SIZE]

    def write(self, data: bytes, offset: int = 0) -> int:
        """Write; returns how many bytes were taken: what is beyond a page is not looked at, nor is ``offset``."""
        self._check(0o200, errno.EIO)
        taken = data[:PAGE_SIZE]
        if taken:
            self.store(taken)
        return len(taken)

    def _check(self, bit: int, number: int) -> None:
        if self.removed:
            fail(errno.ENODEV)
        if not self.mode & bit:
            fail(number)


class Kind:
    """How a value is read and shown."""

    def __init__(self, parse: Callable[[bytes], Any], show: Callable[[Any], str] = str) -> None:
        self.parse = parse
        self.show = show


def _inval(parse: Callable[[bytes], int]) -> Callable[[bytes], int]:
    def strict(data: bytes) -> int:
        try:
            return parse(data)
        except OSError:
            fail(errno.EINVAL)

    return strict


ULONG = Kind(formats.parse_ulong)
UINT = Kind(formats.parse_uint)
INT = Kind(formats.parse_int)
BOOL = Kind(formats.parse_bool, lambda value: "Y" if value else "N")
TEXT = Kind(formats.text)  # kept as it was written
# A few files say EINVAL also for numbers that are too large.
ULONG_OR_EINVAL = Kind(_inval(formats.parse_ulong))
INT_OR_EINVAL = Kind(_inval(formats.parse_int))


def _not_0(data: bytes) -> int:
    return formats.parse_ulong(data) or fail(errno.EINVAL)


ULONG_NOT_0 = Kind(_not_0)


def one_of(words: Iterable[str]) -> Kind:
    """One of ``words``; EINVAL for another."""
    known = frozenset(words)

    def parse(data: bytes) -> str:
        word = formats.parse_word(data)
        if word not in known:
            fail(errno.EINVAL)
        return word

    return Kind(parse)


class Value(File):
    """A file that holds one value, `value`; with mode 0400 only the program itself changes it."""

    __slots__ = ("kind", "value")

    def __init__(self, kind: Kind, value: Any, mode: int = 0o600) -> None:
        super().__init__(mode)
        self.kind = kind
        self.value = value

    def show(self) -> str:
        return f"{self.kind.show(self.value)}\n"

    def store(self, data: bytes) -> None:
        self.value = self.kind.parse(data)


class Computed(File):
    """A file whose content is made when it is read, and whose writes are passed on."""

    __slots__ = ("_show", "_store")

    def __init__(
        self, show: Callable[[], str] | None, store: Callable[[bytes], object] | None = None, *, mode: int | None = None
    ) -> None:
        super().__init__((0o600 if store else 0o400) if mode is None else mode)
        self._show = show
        self._store = store

    def show(self) -> str:
        return super().show() if self._show is None else self._show()

    def store(self, data: bytes) -> None:
        if self._store is None:
            super().store(data)
        else:
            self._store(data)


class Directory(Node):
    """Names and what they stand for. ``about`` is whatever the owner wants to find again by the directory."""

    __slots__ = ("_children", "about")

    def __init__(self, children: dict[str, Node] | None = None, about: Any = None) -> None:
        super().__init__(DIRECTORY_MODE)
        self._children: dict[str, Node] = children if children is not None else {}
        self.about = about

    def names(self) -> list[str]:
        """What is in it."""
        return list(self._children)

    def get(self, name: str) -> Node | None:
        """The entry ``name``, or None."""
        return self._children.get(name)

    def nr_directories(self) -> int:
        """How many of its entries are directories."""
        return sum(isinstance(node, Directory) for node in list(self._children.values()))

    def replace(self, children: dict[str, Node]) -> None:
        """Put ``children`` where entries were before; those are removed."""
        old, self._children = self._children, children
        kept = {id(node) for node in children.values()}
        for node in old.values():
            if id(node) not in kept:
                remove(node)

    def __getitem__(self, path: str) -> Any:
        """The node at the relative ``path``, which is there; a value's value."""
        node: Any = self
        for name in path.split("/"):
            node = node._children[name]
        return node.value if isinstance(node, Value) else node

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def set(self, path: str, value: Any) -> None:
        """Change the value at the relative ``path``."""
        folder, _, name = path.rpartition("/")
        node: Any = (self[folder] if folder else self)._children[name]
        node.value = value

    def optional(self, name: str, default: Any) -> Any:
        """What `__getitem__` gives for ``name``, or ``default`` where there is no such file."""
        return default if self.get(name) is None else self[name]


def remove(node: Node) -> None:
    """Mark ``node`` and all below it as taken out."""
    for each in walk(node):
        each.removed = True


def walk(node: Node) -> Iterator[Node]:
    """``node`` and all below it that is kept in memory."""
    yield node
    if isinstance(node, Directory):
        for child in list(node._children.values()):
            yield from walk(child)


class Budget:
    """Bounds how many nodes users may have made: memory is not theirs to fill."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, nodes: int) -> None:
        """Take room for ``nodes`` more; raises OSError ENOMEM, and takes none then."""
        if nodes > self._left:
            fail(errno.ENOMEM)
        self._left -= nodes


class Numbered(Directory):
    """A directory whose file ``nr_…`` says how many numbered subdirectories it has; writing it makes them anew.

    ``guard`` surrounds a change (it may refuse it), ``most`` is how many there may be (beyond: ``beyond``, an error
    number).
    """

    __slots__ = ("_beyond", "_budget", "_guard", "_make", "_most", "_spent", "nr")

    def __init__(
        self,
        counter: str,
        make: Callable[[int], Directory],
        *,
        budget: Budget,
        guard: Callable[[], Any],
        most: int,
        beyond: int = errno.ENOMEM,
    ) -> None:
        self.nr = 0
        self._make = make
        self._budget = budget
        self._guard = guard
        self._most = most
        self._beyond = beyond
        self._spent = 0
        super().__init__({counter: Computed(lambda: f"{self.nr}\n", self._store)})

    def __iter__(self) -> Iterator[Directory]:
        """The numbered directories."""
        for number in range(self.nr):
            child = self._children.get(str(number))
            if isinstance(child, Directory):
                yield child

    def _store(self, data: bytes) -> None:
        nr = formats.parse_int(data)
        if nr < 0:
            fail(errno.EINVAL)
        if nr > self._most:
            fail(self._beyond)
        with self._guard():
            self.resize(nr)

    def resize(self, nr: int) -> None:
        """Make ``nr`` new directories in place of those that there are; ENOMEM if that is too much."""
        counter = next(iter(self._children))
        spent, made = 0, {counter: self._children[counter]}
        self._give_back()  # as in the kernel, the old ones are gone even if there is no room for the new ones
        self.nr = 0
        self.replace({counter: made[counter]})
        try:
            for number in range(nr):
                child = self._make(number)
                nodes = sum(1 for _ in walk(child))
                self._budget.take(nodes)
                spent += nodes
                made[str(number)] = child
        except OSError:
            self._budget.take(-spent)
            raise
        self._spent = spent
        self.replace(made)
        self.nr = nr

    def _give_back(self) -> None:
        below = sum(child.spent() for child in _counted(self))
        self._budget.take(-(self._spent + below))
        self._spent = 0

    def spent(self) -> int:
        """Nodes of the budget that its users have made in it, at any depth."""
        return self._spent + sum(child.spent() for child in _counted(self))


def _counted(directory: Directory) -> Iterator[Numbered]:
    """The nearest `Numbered` directories below."""
    for child in list(directory._children.values()):
        if isinstance(child, Numbered):
            yield child
        elif isinstance(child, Directory):
            yield from _counted(child)


class Tree:
    """Paths over a root directory: what a file system needs. ``file_size`` is the size that files are said to have."""

    file_size = PAGE_SIZE

    def __init__(self, root: Directory) -> None:
        self.root = root

    def find(self, path: str) -> Node:
        """The node at ``path`` (``/`` is the root); raises OSError ENOENT or ENOTDIR."""
        node: Node = self.root
        for name in path.split("/"):
            if not name:
                continue
            if not isinstance(node, Directory):
                fail(errno.ENOTDIR)
            child = node.get(name)
            if child is None:
                fail(errno.ENOENT)
            node = child
        return node

    def file(self, path: str) -> File:
        """The file at ``path``; raises OSError ENOENT, ENOTDIR or EISDIR."""
        node = self.find(path)
        if not isinstance(node, File):
            fail(errno.EISDIR)
        return node

    def names(self, path: str) -> list[str]:
        """What is in the directory at ``path``; raises OSError."""
        node = self.find(path)
        if not isinstance(node, Directory):
            fail(errno.ENOTDIR)
        return node.names()

    def read(self, path: str) -> str:
        """What a reader of the file at ``path`` sees."""
        return self.file(path).read().decode("latin-1")

    def write(self, path: str, content: str | int | bytes) -> None:
        """Write to the file at ``path`` once."""
        self.file(path).write(content if isinstance(content, bytes) else str(content).encode("latin-1"))

    def paths(self) -> Iterator[tuple[str, Node]]:
        """All paths with their nodes, the root first."""
        pending: list[tuple[str, Node]] = [("/", self.root)]
        while pending:
            path, node = pending.pop()
            yield path, node
            if isinstance(node, Directory):
                for name in reversed(node.names()):
                    child = node.get(name)
                    if child is not None:
                        pending.append((f"{path.rstrip('/')}/{name}", child))
