"""Runs a TensorRT engine on an NVIDIA GPU.

The host hands over pictures and gets words back; between, it never waits for a step. A token feeds the next step in
device memory, two copies of the decoding state take turns, and launches are recorded once and replayed.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustscanner.errors import ConstraintError, EngineError
from robustscanner.gpu.bucket import Bucket, Buffers, Layouts, Rig, Size, Tape, fresh_state
from robustscanner.gpu.crops import Cropper, DevicePicture
from robustscanner.gpu.decoding import (
    Schedule,
    batch_buckets,
    bucket_for,
    choose_schedule,
    chunks,
    decode,
    divisors,
)
from robustscanner.gpu.device import (
    Gpu,
    Recorder,
    compute_capability,
    find_device,
    first_line,
    import_pycuda,
    is_lost,
)
from robustscanner.gpu.kernel_decoder import KernelBucket, KernelDecoder
from robustscanner.gpu.kernel_module import KernelModule
from robustscanner.gpu.plan import ALLOWED, REBUILD, Encoder, Library, Plan, check_plans, import_tensorrt, open_plans
from robustscanner.gpu.probe import probe
from robustscanner.gpu.row_encoder import RowEncoder
from robustscanner.regions import Words, describe
from robustscanner.session import (
    COLUMNS,
    Allowed,
    Columns,
    GpuOptions,
    HostFacts,
    Images,
    Scores,
    SessionOptions,
    Tokens,
    Trace,
    Widths,
    check_result,
)
from robustscanner.spec import ModelSpec

_RESTART = (
    "after such a fault nothing in this process can use the GPU: start the process again, "
    "and look into the kernel's log (dmesg) if it stays so"
)

OpenPlans = Callable[[Sequence[Path]], tuple[Plan, ...]]

logger = logging.getLogger(__name__)


class TensorRTSession:
    """One bundle of ours for TensorRT or TensorRT-RTX, opened on a GPU; see `session.Session`.

    Threads may share it: one runs at a time. The GPU's primary context is shared with whoever else uses it.

    Args:
        plans: that fit this machine (see `engine.check_host`): the encoder, a step, and if there is one a step for just
            one picture.
        spec: the model inside.
        backend: "tensorrt" or "tensorrt-rtx".
        options: how to run it.
        kernels: the compiled kernels and the decode kernel's weights; then, or not, the encoder's halves before and
            after its row LSTM, and that kernel's weights; or nothing.

    Raises:
        EngineError: no GPU, a missing library, plans that cannot be opened or are none of ours, too little memory.
    """

    def __init__(
        self,
        plans: Sequence[Path],
        spec: ModelSpec,
        *,
        backend: str,
        options: SessionOptions,
        kernels: Sequence[Path] = (),
    ) -> None:
        self.path = plans[0].parent
        self.spec = spec
        self._lock = threading.RLock()
        self._device = options.gpu.device
        with _at(self.path):
            library = import_tensorrt(backend)
            self._drv = import_pycuda(library.product)
        with self._explained():
            self._gpu = Gpu(self._drv, options)
        # Also runs when a session is forgotten, and before the interpreter takes the libraries apart.
        self._finalize = weakref.finalize(self, self._gpu.close)
        try:
            with self._explained(), self._gpu.current():
                self._worker = _Worker(library, self._gpu, plans, kernels, spec, options.gpu)
        except BaseException:
            self._finalize()
            raise
        self.max_batch: int | None = self._worker.buckets[-1]
        self.can_constrain = self._worker.can_constrain
        logger.info("%s: %s, %s, %s", self.path, spec.name, library, self._worker.kernel or self._worker.schedule)

    def __enter__(self) -> "TensorRTSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees what lies on the GPU; the context stays, as others in this process may use it."""
        with self._lock:
            self._finalize()

    def run(self, images: Images, valid_width: Widths, allowed: Allowed | None = None) -> tuple[Tokens, Scores]:
        """See `session.Session.run`; any number of pictures, cut into runs that the engine can take."""
        with self._lock:
            return self._run(images, valid_width, allowed)

    def trace(self, images: Images, valid_width: Widths, allowed: Allowed) -> Trace:
        """What a run over one canvas comes by, see `OnnxSession.trace`; it takes two more runs for each letter."""
        if not self.can_constrain:
            raise ConstraintError(f"{self.path}: older than constraints, which letters need; {REBUILD}")
        with self._lock:
            chances = probe(partial(self._run, images, valid_width), allowed, self.spec)
            with self._explained(), self._gpu.current():
                return Trace(chances, self._worker.columns(images.shape[2]))

    def _run(self, images: Images, valid_width: Widths, allowed: Allowed | None) -> tuple[Tokens, Scores]:
        if not self._finalize.alive:
            raise EngineError(f"{self.path}: already closed; open it again")
        _check_input(self.path, self.spec, images, valid_width)
        self._check_allowed(allowed)
        tokens = np.empty((len(images), self.spec.network.max_length), np.int32)
        scores = np.empty(tokens.shape, np.float32)
        with self._explained(), self._gpu.current():
            self._worker.allow(allowed)
            for rows in chunks(len(images), self._worker.buckets[-1]):
                self._worker.read(images[rows], valid_width[rows], tokens[rows], scores[rows])
            check_result(self.spec, len(images), tokens, scores)
        return tokens, scores

    def run_regions(
        self, picture: Any, regions: Sequence[Any], *, allowed: Allowed | None = None, stream: int | None = None
    ) -> tuple[Tokens, Scores]:
        """Reads words of a picture that lies on the GPU; it may be changed again when this returns.

        Args:
            picture: see `crops.DevicePicture.of`.
            regions: see `regions.describe`.
            allowed: see `session.Session.run`.
            stream: handle of the CUDA stream that fills the picture, if it does not say so itself.

        Raises:
            ImageError: a picture or regions that cannot be read.
            EngineError: the run failed.
        """
        with self._lock:
            if not self._finalize.alive:
                raise EngineError(f"{self.path}: already closed; open it again")
            self._check_allowed(allowed)
            tokens = np.empty((len(regions), self.spec.network.max_length), np.int32)
            scores = np.empty(tokens.shape, np.float32)
            with self._explained(), self._gpu.current():
                found = DevicePicture.of(picture, self._gpu.stream.handle, stream)
                words = describe(regions, *found.shape[:2], self.spec.input)
                if found.stream is not None:
                    self._gpu.wait_for(found.stream)
                self._worker.allow(allowed)
                self._worker.read_words(found, words, tokens, scores)
                check_result(self.spec, len(regions), tokens, scores)
            return tokens, scores

    def _check_allowed(self, allowed: Allowed | None) -> None:
        if allowed is None:
            return
        if not self.can_constrain:
            raise EngineError(f"{self.path}: older than constraints, and takes none; {REBUILD}")
        wanted = (self.spec.network.max_length, self.spec.charset.class_count)
        if allowed.shape != wanted or allowed.dtype != np.float32:
            found = f"{allowed.dtype} {list(allowed.shape)}"
            raise EngineError(f"{self.path}: allowed is {found}, not float32 {list(wanted)}; see Session.run")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever goes wrong inside is told in one line."""
        try:
            with _at(self.path):
                yield
        except self._drv.MemoryError as error:
            cure = "close what else uses the GPU, or build it with a smaller --max-batch"
            raise EngineError(f"{self.path}: too little GPU memory ({first_line(error)}); {cure}") from None
        except (self._drv.Error, EngineError) as error:
            ours = isinstance(error, EngineError)
            told = str(error) if ours else f"{self.path}: the GPU failed ({first_line(error)})"
            if is_lost(self._drv, self._device):
                raise EngineError(f"{told.removesuffix(f'; {REBUILD}')}; {_RESTART}") from None
            if ours:
                raise
            raise EngineError(f"{told}; open it again, and look into the kernel's log (dmesg) if it stays so") from None


@contextmanager
def _at(path: Path) -> Iterator[None]:
    """Errors from inside begin with this path."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from None


def host_facts(backend: str, device: int = 0) -> HostFacts:
    """What a TensorRT engine has to fit here.

    Raises:
        EngineError: no GPU of that number, or a missing library.
    """
    library = import_tensorrt(backend)
    found = find_device(import_pycuda(library.product), device)
    return HostFacts(library.version, compute_capability(found), found.name())


class _Worker:
    """What lies on the GPU: plans, buffers, and the buckets that were needed so far."""

    def __init__(
        self,
        library: Library,
        gpu: Gpu,
        plans: Sequence[Path],
        kernels: Sequence[Path],
        spec: ModelSpec,
        options: GpuOptions,
    ) -> None:
        self._spec, self._steps = spec, spec.network.max_length
        _check_steps(options, self._steps)
        open_ = partial(open_plans, library, gpu, host_code=options.host_code)
        module = _open_module(gpu, kernels, options)
        encoder, steps = _open_parts(open_, plans, module, kernels[2:], options)
        for step in steps:
            check_plans(encoder, step, spec)
        decoder = steps[0]
        self.buckets = _choose_buckets(encoder, decoder, options)
        sizes = [Size(pictures, width) for width in spec.input.canvas_widths for pictures in self.buckets]
        self._rig = _make_rig(gpu, encoder, steps, sizes, spec, cuda_graphs=options.cuda_graphs)
        self._prepared: dict[Size, Bucket | KernelBucket] = {}
        self._cropper: Cropper | None = None
        self.kernel = _open_kernel(self._rig, module, kernels[1:2], sizes, spec, options)
        self.can_constrain = all(ALLOWED in step.inputs for step in steps)
        gpu.own(self._close)
        self.schedule = Schedule(self._steps, 0) if self.kernel else self._choose_schedule(options)
        for pictures in options.prepared or (self.buckets[0], self.buckets[-1]):
            self._blank_bucket(pictures)

    def allow(self, allowed: Allowed | None) -> None:
        """What texts may be from now on."""
        self._rig.buffers.allow(allowed, self._rig.gpu)

    def read(self, images: Images, valid_width: Widths, tokens: Tokens, scores: Scores) -> None:
        """Reads at most the largest bucket's pictures into the rows given."""
        bucket = self._bucket(Size(bucket_for(len(images), self.buckets), images.shape[2]), images, valid_width)
        bucket.fill(images, valid_width)
        self._decode(bucket, tokens, scores)

    def columns(self, width_px: int) -> Columns | None:
        """What CTC saw in the only picture of the last run, whose canvas was so wide."""
        layout = self._prepared[Size(self.buckets[0], width_px)].layouts.memory
        if COLUMNS not in layout.tensors:
            return None
        found = self._rig.buffers.remembered(layout, COLUMNS, self._rig.gpu)[0]
        return np.asarray(found, np.float32)

    def read_words(self, picture: DevicePicture, words: Words, tokens: Tokens, scores: Scores) -> None:
        """Reads any number of words, those of one canvas width together, into the rows given."""
        if self._cropper is None and len(words):
            area = self._spec.input.resize == "area"
            self._cropper = Cropper(self._rig.gpu, self.buckets[-1], area=area)
        widths = np.array([self._spec.input.canvas_width(int(valid)) for valid in words["valid"]], np.intp)
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            for part in chunks(len(rows), self.buckets[-1]):
                chosen = rows[part]
                tokens[chosen], scores[chosen] = self._read_drawn(picture, words[chosen], int(width))

    def _read_drawn(self, picture: DevicePicture, words: Words, width: int) -> tuple[Tokens, Scores]:
        assert self._cropper is not None
        size = Size(bucket_for(len(words), self.buckets), width)
        bucket = self._bucket(size, *_blank(self._spec, width))
        bucket.draw(self._cropper, picture, words)
        tokens = np.empty((len(words), self._steps), np.int32)
        scores = np.empty(tokens.shape, np.float32)
        self._decode(bucket, tokens, scores)
        return tokens, scores

    def _decode(self, bucket: Bucket | KernelBucket, tokens: Tokens, scores: Scores) -> None:
        if isinstance(bucket, KernelBucket):
            bucket.read(tokens, scores)
            return
        blocks = decode(bucket, self._steps // self.schedule.steps_per_launch, lookahead=self.schedule.lookahead)
        bucket.fetch(blocks, tokens, scores)

    def _bucket(self, size: Size, images: Images, valid_width: Widths) -> Bucket | KernelBucket:
        if size in self._prepared:
            return self._prepared[size]
        bucket = KernelBucket(self._rig, self.kernel, size) if self.kernel else Bucket(self._rig, size)
        bucket.fill(images, valid_width)
        self._prepared[size] = bucket  # even if the next line fails: then without recordings
        bucket.prepare(self.schedule.steps_per_launch)
        return bucket

    def _blank_bucket(self, pictures: int) -> None:
        """Makes ready for `pictures` pictures of the usual width, before there are any."""
        width = self._spec.input.canvas_widths[-1]
        self._bucket(Size(bucket_for(pictures, self.buckets), width), *_blank(self._spec, width))

    def _choose_schedule(self, options: GpuOptions) -> Schedule:
        """Measures the smallest batch, where waiting weighs most, unless all is decided."""
        if options.steps_per_launch is not None and options.lookahead is not None:
            return Schedule(options.steps_per_launch, options.lookahead)
        size = Size(self.buckets[0], self._spec.input.canvas_widths[-1])
        bucket = self._prepared[size] = Bucket(self._rig, size)
        bucket.fill(*_blank(self._spec, size.width_px))
        times = bucket.measure()
        schedule = choose_schedule(
            times, self._steps, steps_per_launch=options.steps_per_launch, lookahead=options.lookahead
        )
        logger.info("%s, hence %s", times, schedule)
        bucket.prepare(schedule.steps_per_launch)
        return schedule

    def _close(self) -> None:
        for bucket in self._prepared.values():
            bucket.forget()
        self._prepared.clear()


def _open_module(gpu: Gpu, files: Sequence[Path], options: GpuOptions) -> KernelModule | None:
    """The compiled kernels, if the engine has them, they run here, and nobody wants steps."""
    if options.decoder == "steps" or (not files and options.decoder is None):
        return None
    try:
        if len(files) < 2:
            raise EngineError("has no decode kernel; build it with --decoder kernel, or read with decoder='steps'")
        return KernelModule(gpu, files[0])
    except EngineError as error:
        _do_without("decodes step by step, which is slower", error, options)
        return None


def _open_parts(
    open_: OpenPlans, plans: Sequence[Path], module: KernelModule | None, files: Sequence[Path], options: GpuOptions
) -> tuple[Encoder, tuple[Plan, ...]]:
    """The encoder, around the row kernel if the engine has one and it runs here, and the steps."""
    if module is None or len(files) != 3:
        encoder, *others = open_(plans)
        return encoder, tuple(others)
    steps = open_(plans[1:])
    try:
        front, back = open_(files[:2])
        return RowEncoder(front, back, module, files[2], steps[0].inputs), steps
    except EngineError as error:
        _do_without("runs the row LSTM in TensorRT, which is slower", error, options)
    return open_(plans[:1])[0], steps


def _open_kernel(
    rig: Rig,
    module: KernelModule | None,
    weights: Sequence[Path],
    sizes: Sequence[Size],
    spec: ModelSpec,
    options: GpuOptions,
) -> KernelDecoder | None:
    """The decode kernel, if it runs here."""
    if module is None:
        return None
    try:
        layouts = {size: Layouts.of(rig.encoder, rig.decoder_for(size), size) for size in sizes}
        return KernelDecoder(module, weights[0], spec, layouts)
    except EngineError as error:
        _do_without("decodes step by step, which is slower", error, options)
        return None


def _do_without(what: str, error: EngineError, options: GpuOptions) -> None:
    """A kernel that does not run here is done without, unless it was asked for."""
    if options.decoder == "kernel":
        raise error
    logger.warning("%s: %s", what, error)


def _blank(spec: ModelSpec, width_px: int) -> tuple[Images, Widths]:
    """One black picture."""
    return np.zeros((1, spec.input.height_px, width_px, 3), np.uint8), np.array([width_px], np.int32)


def _make_rig(
    gpu: Gpu, encoder: Encoder, steps: Sequence[Plan], sizes: Sequence[Size], spec: ModelSpec, *, cuda_graphs: bool
) -> Rig:
    """Takes all the memory that the session will ever need, but for what TensorRT's contexts take themselves."""
    plans = (*encoder.halves, *steps)
    scratch = gpu.device_memory(max(plan.scratch_bytes for plan in plans))
    for plan in plans:
        plan.use_scratch(scratch)
    decoder, *single = steps
    layouts = {size: Layouts.of(encoder, decoder, size) for size in sizes}
    if isinstance(encoder, RowEncoder):
        encoder.reserve()
    fresh = {size: fresh_state(layout.state, spec) for size, layout in layouts.items()}
    buffers = Buffers(gpu, list(layouts.values()), fresh)
    tape = Tape(Recorder.open(gpu.stream) if cuda_graphs else None, gpu.drv.Error)
    count = spec.network.max_length
    return Rig(gpu, encoder, decoder, single[0] if single else None, buffers, gpu.events(count), tape, count)


def _choose_buckets(encoder: Encoder, decoder: Plan, options: GpuOptions) -> tuple[int, ...]:
    ranges = [encoder.extent("images"), decoder.extent("token")]
    smallest, largest = max(low for low, _ in ranges), min(high for _, high in ranges)
    if smallest > largest:
        raise EngineError(f"encoder and decoder share no batch size; {REBUILD}")
    buckets = options.buckets or batch_buckets(smallest, largest)
    if not smallest <= buckets[0] <= buckets[-1] <= largest:
        raise EngineError(f"buckets are {buckets}, but the engine takes {smallest} to {largest}; give such sizes")
    return buckets


def _check_steps(options: GpuOptions, steps: int) -> None:
    wanted = options.steps_per_launch
    if wanted is not None and steps % wanted:
        raise EngineError(f"steps_per_launch is {wanted}; give a divisor of {steps}: {divisors(steps)}")


def _check_input(path: Path, spec: ModelSpec, images: Images, valid_width: Widths) -> None:
    widths = spec.input.canvas_widths
    width = images.shape[2] if images.ndim == 4 and images.shape[2] in widths else widths[-1]
    shape = (len(images), spec.input.height_px, width, 3)
    for array, wanted, kind in ((images, shape, np.uint8), (valid_width, shape[:1], np.int32)):
        if array.shape != wanted or array.dtype != kind:
            found = f"{array.dtype} {list(array.shape)}"
            raise EngineError(f"{path}: given {found}, not {np.dtype(kind)} {list(wanted)}; see Session.run")
