"""Send messages with tensors between processes, the tensors' bytes in anonymous shared memory.

The memory is an unnamed file whose descriptor travels with the message: no kill can leave it
behind, and no limit on `/dev/shm` (64 MB in Docker) applies to it.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import pickle
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64


def send(connection: Connection[Any, Any], message: Any) -> None:
    """Send anything that can be pickled."""
    buffer = io.BytesIO()
    packer = _Packer(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    packer.dump(message)
    content = packer.size.to_bytes(8, "little") + buffer.getbuffer()
    if packer.size == 0:
        connection.send_bytes(content)
        return
    # descriptors first: if they run out, nothing has been sent, and the caller can try again
    with _anonymous_file() as descriptor, _socket_of(connection) as sender:
        os.ftruncate(descriptor, packer.size)
        for start, tensor in packer.tensors:
            # writing avoids the page faults that a mapping would cost this process
            data: Any = tensor.view(-1).view(torch.uint8).numpy()
            view = memoryview(data)
            while view.nbytes:
                written = os.pwrite(descriptor, view, start)
                start, view = start + written, view[written:]
        connection.send_bytes(content)
        reduction.sendfds(sender, [descriptor])  # what `recv_handle` receives


def receive(connection: Connection[Any, Any]) -> Any:
    """Return the next message.

    Raises:
        EOFError: The other end has died.
        OSError: The same.
    """
    data = connection.recv_bytes()
    unpacker = _Unpacker(io.BytesIO(memoryview(data)[8:]))
    if size := int.from_bytes(data[:8], "little"):
        try:
            descriptor = reduction.recv_handle(connection)
        except RuntimeError as error:  # the kernel drops a descriptor over this process's limit
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        try:
            unpacker.memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    return unpacker.load()


class _Packer(pickle.Pickler):
    """Pickles everything but the bytes of tensors, and notes where those belong."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tensors: list[tuple[int, Tensor]] = []
        self.size = 0

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.numel() == 0:
            return None
        start = self.size
        self.tensors.append((start, value.detach().contiguous()))
        self.size += -(-value.numel() * value.element_size() // ALIGNMENT) * ALIGNMENT
        return start, tuple(value.shape), value.dtype


class _Unpacker(pickle.Unpickler):
    memory: mmap.mmap | None = None

    def persistent_load(self, key: Any) -> Tensor:
        start, shape, dtype = key
        assert self.memory is not None
        # the tensor keeps the mapping alive, and the mapping the memory
        flat = torch.frombuffer(
            self.memory, dtype=dtype, count=torch.Size(shape).numel(), offset=start
        )
        return flat.view(shape)


@contextmanager
def _anonymous_file() -> Iterator[int]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("hiera-video", os.MFD_CLOEXEC)
    else:
        descriptor, name = tempfile.mkstemp()
        os.unlink(name)  # noqa: PTH108
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _socket_of(connection: Connection[Any, Any]) -> socket.socket:
    return socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
