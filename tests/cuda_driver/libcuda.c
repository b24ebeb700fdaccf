/* A stand-in for NVIDIA's driver, libcuda.so.1: what PyCUDA and cuda-bindings call, without a GPU.
 *
 * Work that is queued runs when somebody waits for it, and only as far as they wait, or a given number of pieces further:
 * a real device does not stop where somebody waits. Device memory begins as garbage,
 * lies at addresses that the host cannot read, and every access is checked. All calls are counted; any can be told to
 * fail. What a real driver would punish with garbage, a crash or a leak is noted as a problem. Kernels and TensorRT's
 * runs are functions that a test hands in.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct Context *CUcontext;
typedef struct Stream *CUstream;
typedef struct Event *CUevent;
typedef struct Graph *CUgraph, *CUgraphExec;
typedef int (*Run)(long number);                          /* gives 0, or the status that the stream fails with */
typedef void (*Freed)(CUdeviceptr address, size_t bytes); /* told before memory goes */

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
  PRIMARY_CONTEXT_ACTIVE = 708, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901
};
enum { GARBAGE = 0xCD, MAX_DEVICES = 4, MAX_DEPTH = 32, MAX_NAMES = 256, MAX_PROBLEMS = 32, CAPTURE_THREAD_LOCAL = 1 };
enum { STREAM_NON_BLOCKING = 1, EVENT_BLOCKING_SYNC = 1, HOST_ALLOC_DEVICEMAP = 2, CTX_SCHED_BLOCKING_SYNC = 4 };
enum { TOTAL_BYTES = 1 << 30, ALIGNMENT = 4096, MULTIPROCESSORS = 16, SHARED_BYTES = 163 << 10 };
static const uint64_t OFFSET = 1ull << 56; /* from a host address to its device address: nothing is mapped there */

struct Context { int device, retains; unsigned flags; };

enum Kind { DEVICE, PINNED, MAPPED };
struct Block { uint8_t *host; size_t bytes; enum Kind kind; struct Block *next; };

enum { MAX_PARAMETERS = 16, ATTRIBUTE_COOPERATIVE = 2, ATTRIBUTE_CLUSTER = 4 };
typedef void (*Kernel)(const unsigned shape[7], const uint64_t *values); /* grid, block, shared bytes; parameters */
struct Kernel { char name[64]; Kernel run; int parameters; size_t bytes[MAX_PARAMETERS]; unsigned shared_bytes; struct Kernel *next; };

enum Task { COPY, MARK, WAIT, CALL, KERNEL };
struct Work {
  enum Task task;
  uint8_t *target, *source, *staged; /* of a copy, as host addresses; staged: to be freed */
  size_t bytes;
  CUevent event;
  long number; /* of a mark: which recording of the event; of a call: what to run */
  struct Kernel *kernel;
  unsigned shape[7];
  uint64_t values[MAX_PARAMETERS];
  struct Work *next;
};
struct Queue { struct Work *first, **last; };
struct Stream { unsigned flags; struct Queue queue; CUgraph recording; int broken; pthread_t recorder; struct Stream *next; };
struct Event { unsigned flags; CUstream stream; long recorded, reached; int captured; };
struct Graph { struct Queue queue; };

static struct {
  int devices, major, minor, integrated, initialized, sticky;
  long ahead; /* pieces of work that run beyond what is waited for */
  char name[64];
  struct Context primary[MAX_DEVICES];
  struct Block *blocks;
  struct Kernel *kernels;
  struct Stream *streams, legacy; /* legacy: stream 0, which pageable copies go through */
  long device_bytes, device_blocks, pinned_blocks, events, graphs, modules;
  struct { const char *name; long calls, fails_at, fails; int status; } calls[MAX_NAMES];
  int names;
  char *problems[MAX_PROBLEMS];
  int problem_count;
  Run run;
  Freed freed;
} now = {.major = 8, .minor = 7, .name = "stand-in driver"};

static pthread_mutex_t lock;
static __thread CUcontext stack[MAX_DEPTH];
static __thread int depth;
static long depths; /* of all threads together */

static void problem(const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (now.problem_count < MAX_PROBLEMS) now.problems[now.problem_count++] = strdup(text);
}

/* ---- calls: counted, and failed when a test says so ---- */

static int find(const char *name) {
  int index = 0;
  while (index < now.names && strcmp(now.calls[index].name, name)) index++;
  if (index == now.names && now.names < MAX_NAMES) now.calls[now.names++].name = strdup(name);
  return index;
}

/* Whether the call may go on: SUCCESS, or what it has to return. Holds the lock from here on. */
static CUresult begin(const char *name, int needs_context) {
  pthread_mutex_lock(&lock);
  int index = find(name);
  long call = ++now.calls[index].calls;
  if (now.sticky && needs_context) return now.sticky;
  long at = now.calls[index].fails_at;
  if (now.calls[index].fails && (at > 0 ? call == at : call >= -at)) return now.calls[index].status;
  if (strcmp(name, "cuInit") && !now.initialized) return NOT_INITIALIZED;
  return needs_context && !depth ? INVALID_CONTEXT : SUCCESS;
}

static CUresult end(CUresult status) {
  if (status == ILLEGAL_ADDRESS) now.sticky = status; /* as on a GPU, until the process ends */
  pthread_mutex_unlock(&lock);
  return status;
}

#define CALL(name, needs_context)                      \
  do {                                                 \
    CUresult status_ = begin(name, needs_context);     \
    if (status_ != SUCCESS) return end(status_);       \
  } while (0)
/* What gives back does so even after a fault, though it reports that; only then is a stand-in for the next test clean. */
#define GIVE_BACK(name, what)                                     \
  do {                                                            \
    CUresult status_ = begin(name, 1), given_ = SUCCESS;          \
    if (status_ == SUCCESS || status_ == now.sticky) given_ = what; \
    return end(status_ == SUCCESS ? given_ : status_);            \
  } while (0)
#define EXPORT __attribute__((visibility("default")))

/* ---- memory ---- */

static struct Block *block_of(const uint8_t *host, size_t bytes) {
  for (struct Block *block = now.blocks; block; block = block->next)
    if (host >= block->host && host + bytes <= block->host + block->bytes) return block;
  return NULL;
}

static uint8_t *reach(CUdeviceptr address, size_t bytes) { /* memory that the device reaches; NULL: it cannot */
  uint8_t *host = (uint8_t *)(address - OFFSET);
  struct Block *block = address >= OFFSET ? block_of(host, bytes) : NULL;
  if (block && block->kind != PINNED) return host;
  problem("%zu bytes at %#llx are nobody's, or were given back", bytes, (unsigned long long)address);
  return NULL;
}

static int queued_anywhere(void) {
  for (CUstream stream = now.streams; stream; stream = stream->next)
    if (stream->queue.first) return 1;
  return 0;
}

static int recording_here(void) { /* a thread-local recording forbids what could disturb it */
  for (CUstream stream = now.streams; stream; stream = stream->next)
    if (stream->recording && pthread_equal(stream->recorder, pthread_self())) return stream->broken = 1;
  return 0;
}

static CUresult allocate(void **host, size_t bytes, enum Kind kind) {
  if (recording_here()) return CAPTURE_UNSUPPORTED;
  if (!bytes) return INVALID_VALUE;
  if (kind == DEVICE && now.device_bytes + (long)bytes > TOTAL_BYTES) return OUT_OF_MEMORY;
  struct Block *block = calloc(1, sizeof *block);
  /* A page on each side is nobody's, so that an overrun hits nothing. */
  block->host = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 3) * ALIGNMENT);
  block->host += ALIGNMENT;
  block->bytes = bytes, block->kind = kind, block->next = now.blocks, now.blocks = block;
  memset(block->host, GARBAGE, bytes);
  if (kind == DEVICE) now.device_blocks++, now.device_bytes += (long)bytes;
  else now.pinned_blocks++;
  *host = block->host;
  return SUCCESS;
}

static CUresult release(uint8_t *host, int device) {
  for (struct Block **place = &now.blocks; *place; place = &(*place)->next) {
    struct Block *block = *place;
    if (block->host != host || (block->kind == DEVICE) != device) continue;
    if (queued_anywhere() && !now.sticky) problem("memory was freed under queued work");
    if (now.freed) {
      pthread_mutex_unlock(&lock);
      now.freed((CUdeviceptr)host + OFFSET, block->bytes);
      pthread_mutex_lock(&lock);
    }
    *place = block->next;
    if (device) now.device_blocks--, now.device_bytes -= (long)block->bytes;
    else now.pinned_blocks--;
    free(block->host - ALIGNMENT);
    free(block);
    return SUCCESS;
  }
  problem("memory at %p was freed twice, or never taken", (void *)host);
  return INVALID_VALUE;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  CALL("cuMemAlloc", 1);
  void *host = NULL;
  CUresult status = allocate(&host, bytes, DEVICE);
  *address = (CUdeviceptr)host + OFFSET;
  return end(status);
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
  GIVE_BACK("cuMemFree", release((uint8_t *)(address - OFFSET), 1));
}

EXPORT CUresult cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
  CALL("cuMemHostAlloc", 1);
  return end(allocate(host, bytes, flags & HOST_ALLOC_DEVICEMAP ? MAPPED : PINNED));
}

EXPORT CUresult cuMemAllocHost_v2(void **host, size_t bytes) {
  CALL("cuMemAllocHost", 1);
  return end(allocate(host, bytes, PINNED));
}

EXPORT CUresult cuMemFreeHost(void *host) {
  GIVE_BACK("cuMemFreeHost", release(host, 0));
}

EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *host, unsigned flags) {
  CALL("cuMemHostGetDevicePointer", 1);
  (void)flags;
  struct Block *block = block_of(host, 1);
  if (!block || block->kind != MAPPED) return end(INVALID_VALUE);
  *address = (CUdeviceptr)host + OFFSET;
  return end(SUCCESS);
}

EXPORT CUresult cuMemGetInfo_v2(size_t *unused, size_t *total) {
  CALL("cuMemGetInfo", 1);
  *total = TOTAL_BYTES, *unused = TOTAL_BYTES - (size_t)now.device_bytes;
  return end(SUCCESS);
}

EXPORT CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr address) {
  CALL("cuPointerGetAttribute", 0);
  struct Block *block = block_of((uint8_t *)(address - OFFSET), 1);
  if (!block || attribute != 9) return end(INVALID_VALUE); /* DEVICE_ORDINAL */
  *(int *)value = 0;
  return end(SUCCESS);
}

/* ---- streams and what waits in them ---- */

static void append(struct Queue *queue, struct Work work) {
  struct Work *item = malloc(sizeof *item);
  *item = work, item->next = NULL;
  if (!queue->first) queue->last = &queue->first;
  *queue->last = item, queue->last = &item->next;
}

static struct Work take(struct Queue *queue) {
  struct Work *item = queue->first, work = *item;
  queue->first = item->next;
  if (!queue->first) queue->last = &queue->first;
  free(item);
  return work;
}

static void clear(struct Queue *queue) {
  while (queue->first) free(take(queue).staged);
}

static CUstream known(CUstream stream) {
  if (!stream || stream == (CUstream)1) return &now.legacy;
  for (CUstream other = now.streams; other; other = other->next)
    if (other == stream) return stream;
  return NULL;
}

static CUresult put(CUstream handle, struct Work work) {
  CUstream stream = known(handle);
  if (!stream) return INVALID_HANDLE;
  append(stream->recording ? &stream->recording->queue : &stream->queue, work);
  return stream->broken ? CAPTURE_INVALIDATED : SUCCESS;
}

/* Runs what is queued, up to a recording of an event if one is given. The lock is let go meanwhile. */
static CUresult drain(CUstream stream, CUevent event, long number) {
  long ahead = now.ahead;
  while (stream->queue.first && (!event || event->reached < number || ahead-- > 0)) {
    struct Work work = take(&stream->queue);
    CUresult status = SUCCESS;
    if (work.task == COPY && work.bytes) {
      if (!block_of(work.target, work.bytes) && !work.staged && !block_of(work.source, work.bytes)) status = ILLEGAL_ADDRESS;
      else memcpy(work.target, work.source, work.bytes);
      free(work.staged);
    } else if (work.task == MARK) {
      if (work.event->reached < work.number) work.event->reached = work.number;
    } else if (work.task == WAIT) {
      CUevent awaited = work.event;
      if (awaited->stream && awaited->reached < work.number) status = drain(awaited->stream, awaited, work.number);
    } else if (work.task == CALL && now.run) {
      pthread_mutex_unlock(&lock);
      status = now.run(work.number);
      pthread_mutex_lock(&lock);
    } else if (work.task == KERNEL) {
      pthread_mutex_unlock(&lock);
      work.kernel->run(work.shape, work.values);
      pthread_mutex_lock(&lock);
    }
    if (status != SUCCESS) return status;
  }
  return SUCCESS;
}

EXPORT CUresult cuStreamCreate(CUstream *made, unsigned flags) {
  CALL("cuStreamCreate", 1);
  CUstream stream = calloc(1, sizeof *stream);
  stream->flags = flags, stream->next = now.streams, now.streams = stream;
  *made = stream;
  return end(SUCCESS);
}

static CUresult end_stream(CUstream handle) {
  for (CUstream *place = &now.streams; *place; place = &(*place)->next) {
    if (*place != handle) continue;
    if (handle->recording) problem("a stream was destroyed while it was recorded");
    drain(handle, NULL, 0); /* the driver lets it finish */
    *place = handle->next;
    free(handle);
    return SUCCESS;
  }
  return INVALID_HANDLE;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream handle) { GIVE_BACK("cuStreamDestroy", end_stream(handle)); }

EXPORT CUresult cuStreamSynchronize(CUstream handle) {
  CALL("cuStreamSynchronize", 1);
  CUstream stream = known(handle);
  if (!stream) return end(INVALID_HANDLE);
  if (stream->recording) return stream->broken = 1, end(CAPTURE_UNSUPPORTED);
  return end(drain(stream, NULL, 0));
}

EXPORT CUresult cuStreamQuery(CUstream handle) {
  CALL("cuStreamQuery", 1);
  CUstream stream = known(handle);
  return end(!stream ? INVALID_HANDLE : stream->queue.first ? NOT_READY : SUCCESS);
}

EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
  CALL("cuStreamWaitEvent", 1);
  (void)flags;
  return end(put(handle, (struct Work){.task = WAIT, .event = event, .number = event->recorded}));
}

EXPORT CUresult cuCtxSynchronize(void) {
  CALL("cuCtxSynchronize", 1);
  CUresult status = drain(&now.legacy, NULL, 0);
  for (CUstream stream = now.streams; stream && status == SUCCESS; stream = stream->next) status = drain(stream, NULL, 0);
  return end(status);
}

/* ---- copies ---- */

static CUresult copy(CUstream stream, uint8_t *target, const void *source, size_t bytes) {
  if (!target || !source) return ILLEGAL_ADDRESS;
  return put(stream, (struct Work){.task = COPY, .target = target, .source = (uint8_t *)source, .bytes = bytes});
}

static void *pinned(const void *host, size_t bytes) {
  struct Block *block = block_of(host, bytes);
  if (!block || block->kind == DEVICE) problem("an asynchronous copy from or to memory that is not page-locked");
  return (void *)host;
}

/* From pageable memory: the bytes are taken at once, but reach the device on stream 0, when that is waited for. */
EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void *source, size_t bytes) {
  CALL("cuMemcpyHtoD", 1);
  if (recording_here()) return end(CAPTURE_UNSUPPORTED);
  uint8_t *host = reach(target, bytes), *staged = malloc(bytes + !bytes);
  memcpy(staged, source, bytes);
  if (!host) return free(staged), end(ILLEGAL_ADDRESS);
  struct Work work = {.task = COPY, .target = host, .source = staged, .staged = staged, .bytes = bytes};
  return end(put(NULL, work));
}

EXPORT CUresult cuMemcpyDtoH_v2(void *target, CUdeviceptr source, size_t bytes) {
  CALL("cuMemcpyDtoH", 1);
  if (recording_here()) return end(CAPTURE_UNSUPPORTED);
  CUresult status = copy(NULL, target, reach(source, bytes), bytes);
  return end(status == SUCCESS ? drain(&now.legacy, NULL, 0) : status);
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t bytes, CUstream stream) {
  CALL("cuMemcpyHtoDAsync", 1);
  return end(copy(stream, reach(target, bytes), pinned(source, bytes), bytes));
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t bytes, CUstream stream) {
  CALL("cuMemcpyDtoHAsync", 1);
  return end(copy(stream, pinned(target, bytes), reach(source, bytes), bytes));
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
  CALL("cuMemcpyDtoDAsync", 1);
  return end(copy(stream, reach(target, bytes), reach(source, bytes), bytes));
}

/* ---- events ---- */

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
  CALL("cuEventCreate", 1);
  *event = calloc(1, sizeof **event);
  (*event)->flags = flags;
  now.events++;
  return end(SUCCESS);
}

static CUresult end_event(CUevent event) {
  if (event->stream && event->reached < event->recorded && known(event->stream)) drain(event->stream, NULL, 0);
  free(event);
  now.events--;
  return SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(CUevent event) { GIVE_BACK("cuEventDestroy", end_event(event)); }

EXPORT CUresult cuEventRecord(CUevent event, CUstream handle) {
  CALL("cuEventRecord", 1);
  CUstream stream = known(handle);
  if (!stream) return end(INVALID_HANDLE);
  event->captured = stream->recording != NULL, event->stream = stream;
  return end(put(handle, (struct Work){.task = MARK, .event = event, .number = ++event->recorded}));
}

EXPORT CUresult cuEventSynchronize(CUevent event) {
  CALL("cuEventSynchronize", 1);
  if (!event->stream) problem("waits for an event that nothing recorded");
  if (event->captured) return end(CAPTURE_UNSUPPORTED);
  return end(event->stream ? drain(event->stream, event, event->recorded) : SUCCESS);
}

EXPORT CUresult cuEventQuery(CUevent event) {
  CALL("cuEventQuery", 1);
  return end(event->reached < event->recorded ? NOT_READY : SUCCESS);
}

EXPORT CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent stop) {
  CALL("cuEventElapsedTime", 1);
  *milliseconds = 0;
  return end(start->reached < start->recorded || stop->reached < stop->recorded ? NOT_READY : SUCCESS);
}

/* ---- recordings ---- */

EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
  CALL("cuStreamBeginCapture", 1);
  if (!known(stream) || stream == &now.legacy || stream->recording) return end(INVALID_VALUE);
  if (mode != CAPTURE_THREAD_LOCAL) problem("a recording that other threads can break");
  stream->recording = calloc(1, sizeof *stream->recording);
  stream->broken = 0, stream->recorder = pthread_self();
  now.graphs++;
  return end(SUCCESS);
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  CUresult status = begin("cuStreamEndCapture", 1);
  CUgraph recorded = known(stream) ? stream->recording : NULL;
  *graph = NULL;
  if (!recorded) return end(INVALID_VALUE);
  if (status == SUCCESS && stream->broken) status = CAPTURE_INVALIDATED;
  stream->recording = NULL, stream->broken = 0; /* in any case */
  if (status == SUCCESS) return *graph = recorded, end(SUCCESS);
  clear(&recorded->queue), free(recorded), now.graphs--;
  return end(status);
}

EXPORT CUresult cuStreamIsCapturing(CUstream handle, int *status) {
  CALL("cuStreamIsCapturing", 1);
  CUstream stream = known(handle);
  *status = !stream || !stream->recording ? 0 : stream->broken ? 2 : 1;
  return end(SUCCESS);
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph graph, unsigned long long flags) {
  CALL("cuGraphInstantiate", 1);
  (void)flags;
  CUgraphExec copied = calloc(1, sizeof *copied);
  for (struct Work *work = graph->queue.first; work; work = work->next) append(&copied->queue, *work);
  *made = copied, now.graphs++;
  return end(SUCCESS);
}

EXPORT CUresult cuGraphUpload(CUgraphExec graph, CUstream stream) {
  CALL("cuGraphUpload", 1);
  (void)graph;
  return end(known(stream) ? SUCCESS : INVALID_HANDLE);
}

EXPORT CUresult cuGraphLaunch(CUgraphExec graph, CUstream handle) {
  CALL("cuGraphLaunch", 1);
  CUresult status = known(handle) ? SUCCESS : INVALID_HANDLE;
  for (struct Work *work = graph->queue.first; work && status == SUCCESS; work = work->next) status = put(handle, *work);
  return end(status);
}

static CUresult forget(CUgraph graph) {
  clear(&graph->queue), free(graph), now.graphs--;
  return SUCCESS;
}

EXPORT CUresult cuGraphDestroy(CUgraph graph) {
  GIVE_BACK("cuGraphDestroy", forget(graph));
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec graph) {
  GIVE_BACK("cuGraphExecDestroy", forget(graph));
}

/* ---- contexts ---- */

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
  CALL("cuCtxPushCurrent", 0);
  if (!context || !context->retains || depth == MAX_DEPTH) return end(INVALID_CONTEXT);
  stack[depth++] = context, depths++;
  return end(SUCCESS);
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  CALL("cuCtxPopCurrent", 0);
  if (!depth) return end(INVALID_CONTEXT);
  CUcontext top = stack[--depth];
  depths--;
  if (context) *context = top;
  return end(SUCCESS);
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
  CALL("cuCtxGetCurrent", 0);
  *context = depth ? stack[depth - 1] : NULL;
  return end(SUCCESS);
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
  CALL("cuCtxSetCurrent", 0);
  if (depth) depth--, depths--;
  if (context) stack[depth++] = context, depths++;
  return end(SUCCESS);
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device) {
  CALL("cuCtxGetDevice", 1);
  *device = stack[depth - 1]->device;
  return end(SUCCESS);
}

EXPORT CUresult cuCtxDetach(CUcontext context) {
  CALL("cuCtxDetach", 0);
  (void)context; /* all contexts here are primary ones, which are released, not detached from */
  problem("cuCtxDetach of a primary context");
  return end(INVALID_CONTEXT);
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  CALL("cuDevicePrimaryCtxRetain", 0);
  if (device < 0 || device >= now.devices) return end(INVALID_DEVICE);
  now.primary[device].device = device, now.primary[device].retains++;
  *context = &now.primary[device];
  return end(SUCCESS);
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  CALL("cuDevicePrimaryCtxRelease", 0);
  if (device < 0 || device >= now.devices || !now.primary[device].retains) return end(INVALID_CONTEXT);
  now.primary[device].retains--;
  return end(SUCCESS);
}

EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  CALL("cuDevicePrimaryCtxSetFlags", 0);
  if (device < 0 || device >= now.devices) return end(INVALID_DEVICE);
  now.primary[device].flags = flags;
  return end(SUCCESS);
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
  CALL("cuDevicePrimaryCtxGetState", 0);
  if (device < 0 || device >= now.devices) return end(INVALID_DEVICE);
  *flags = now.primary[device].flags, *active = now.primary[device].retains > 0;
  return end(SUCCESS);
}

/* ---- devices ---- */

EXPORT CUresult cuInit(unsigned flags) {
  CALL("cuInit", 0);
  (void)flags;
  if (!now.devices) return end(NO_DEVICE);
  now.initialized = 1;
  return end(SUCCESS);
}

EXPORT CUresult cuDriverGetVersion(int *version) {
  *version = 13000;
  return SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
  CALL("cuDeviceGetCount", 0);
  *count = now.devices;
  return end(SUCCESS);
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  CALL("cuDeviceGet", 0);
  if (ordinal < 0 || ordinal >= now.devices) return end(INVALID_DEVICE);
  *device = ordinal;
  return end(SUCCESS);
}

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  CALL("cuDeviceGetName", 0);
  (void)device;
  snprintf(name, (size_t)length, "%s", now.name);
  return end(SUCCESS);
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
  CALL("cuDeviceComputeCapability", 0);
  (void)device;
  *major = now.major, *minor = now.minor;
  return end(SUCCESS);
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  CALL("cuDeviceTotalMem", 0);
  (void)device;
  *bytes = TOTAL_BYTES;
  return end(SUCCESS);
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
  CALL("cuDeviceGetAttribute", 0);
  (void)device;
  switch (attribute) {
    case 16: *value = MULTIPROCESSORS; break;
    case 18: *value = now.integrated; break; /* INTEGRATED */
    case 75: *value = now.major; break;
    case 76: *value = now.minor; break;
    case 97: *value = SHARED_BYTES; break; /* of a block that asks for more than usual */
    default: *value = 0;
  }
  return end(SUCCESS);
}

/* ---- kernels: functions of the test's, found by name ---- */

EXPORT CUresult cuModuleLoadData(void **module, const void *image) {
  CALL("cuModuleLoadData", 1);
  *module = (void *)image;
  now.modules++;
  return end(SUCCESS);
}

EXPORT CUresult cuModuleLoadDataEx(void **module, const void *image, unsigned count, void *options, void **values) {
  (void)count, (void)options, (void)values;
  return cuModuleLoadData(module, image);
}

EXPORT CUresult cuModuleUnload(void *module) {
  CALL("cuModuleUnload", 1);
  (void)module;
  now.modules--;
  return end(SUCCESS);
}

EXPORT CUresult cuModuleGetFunction(void **function, void *module, const char *name) {
  CALL("cuModuleGetFunction", 1);
  (void)module;
  struct Kernel *kernel = now.kernels;
  while (kernel && strcmp(kernel->name, name)) kernel = kernel->next;
  *function = kernel;
  return end(kernel ? SUCCESS : NOT_FOUND);
}

EXPORT CUresult cuFuncSetBlockShape(void *function, int x, int y, int z) {
  CALL("cuFuncSetBlockShape", 1); /* PyCUDA calls it before cuLaunchKernel, which says it again */
  (void)function, (void)x, (void)y, (void)z;
  return end(SUCCESS);
}

/* Parameters are copied at once, as the driver does; how many bytes each has, the test said. */
EXPORT CUresult cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                               void **parameters, void **extra) {
  CALL("cuLaunchKernel", 1);
  const unsigned shape[7] = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes};
  struct Kernel *kernel = function;
  const uint8_t *packed = extra ? extra[1] : NULL; /* after CU_LAUNCH_PARAM_BUFFER_POINTER: as PyCUDA hands them over */
  struct Work work = {.task = KERNEL, .kernel = kernel};
  memcpy(work.shape, shape, sizeof shape);
  size_t offset = 0;
  for (int index = 0; index < kernel->parameters; index++) {
    size_t bytes = kernel->bytes[index];
    offset = (offset + bytes - 1) / bytes * bytes;
    memcpy(work.values + index, packed ? packed + offset : parameters[index], bytes);
    offset += bytes;
  }
  return end(put(stream, work));
}

struct Attribute { int id, unused; unsigned value[16]; };
struct Launch { unsigned shape[7]; CUstream stream; struct Attribute *attributes; unsigned attribute_count; };

/* Of one parameter, which may be a large struct; the kernel is given its address. Copies stay, as recordings do. */
EXPORT CUresult cuLaunchKernelEx(const struct Launch *launch, void *function, void **parameters, void **extra) {
  CALL("cuLaunchKernelEx", 1);
  struct Kernel *kernel = function;
  (void)extra;
  if (launch->shape[6] > kernel->shared_bytes) return end(INVALID_VALUE); /* more shared memory than was asked for */
  int together = 0;
  for (unsigned index = 0; index < launch->attribute_count; index++) {
    const struct Attribute *attribute = launch->attributes + index;
    if (attribute->id == ATTRIBUTE_COOPERATIVE) together = attribute->value[0] && launch->shape[0] <= MULTIPROCESSORS;
    if (attribute->id == ATTRIBUTE_CLUSTER) together = now.major >= 9 && launch->shape[0] % attribute->value[0] == 0;
  }
  if (!together) problem("a kernel was launched whose blocks may not run at once");
  struct Work work = {.task = KERNEL, .kernel = kernel};
  memcpy(work.shape, launch->shape, sizeof work.shape);
  void *copy = malloc(kernel->bytes[0]);
  memcpy(copy, parameters[0], kernel->bytes[0]);
  work.values[0] = (uint64_t)copy;
  return end(put(launch->stream, work));
}

EXPORT CUresult cuFuncSetAttribute(void *function, int attribute, int value) {
  CALL("cuFuncSetAttribute", 1);
  (void)attribute;
  if (value > SHARED_BYTES) return end(INVALID_VALUE);
  ((struct Kernel *)function)->shared_bytes = (unsigned)value;
  return end(SUCCESS);
}

EXPORT CUresult cuOccupancyMaxActiveClusters(int *count, void *function, const struct Launch *launch) {
  CALL("cuOccupancyMaxActiveClusters", 1);
  (void)function;
  *count = launch->attribute_count ? (int)(MULTIPROCESSORS / launch->attributes[0].value[0]) : 0;
  return end(SUCCESS);
}

/* ---- errors ---- */

static const struct { CUresult status; const char *name, *text; } ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {PRIMARY_CONTEXT_ACTIVE, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", "the primary context has already been initialized"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error"},
};

static CUresult describe(CUresult status, const char **text, int name) {
  for (size_t index = 0; index < sizeof ERRORS / sizeof *ERRORS; index++)
    if (ERRORS[index].status == status) return *text = name ? ERRORS[index].name : ERRORS[index].text, SUCCESS;
  return *text = "unknown error", INVALID_VALUE;
}

EXPORT CUresult cuGetErrorName(CUresult status, const char **text) { return describe(status, text, 1); }
EXPORT CUresult cuGetErrorString(CUresult status, const char **text) { return describe(status, text, 0); }

/* ---- for cuda-bindings, which asks for its functions by name ---- */

EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
  char exact[128];
  (void)version, (void)flags;
  *function = NULL;
  for (int suffix = 3; suffix && !*function; suffix--) {
    snprintf(exact, sizeof exact, suffix > 1 ? "%s_v%d" : "%s", name, suffix);
    *function = dlsym(RTLD_DEFAULT, exact);
    Dl_info info, own;
    if (*function && (!dladdr(*function, &info) || !dladdr((void *)cuInit, &own) || info.dli_fbase != own.dli_fbase))
      *function = NULL; /* another library's */
  }
  if (!*function && !strcmp(name, "cuGraphInstantiate")) *function = (void *)cuGraphInstantiateWithFlags;
  if (found) *found = *function ? 0 : 1;
  return *function ? SUCCESS : NOT_FOUND;
}

EXPORT CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

/* ---- what PyCUDA wants to be there when it is loaded, and nobody here calls ---- */

#define UNUSED(name) \
  EXPORT CUresult name(void) { return NOT_SUPPORTED; }
/* clang-format off */
UNUSED(cuArray3DCreate_v2) UNUSED(cuArray3DGetDescriptor_v2) UNUSED(cuArrayCreate_v2) UNUSED(cuArrayDestroy)
UNUSED(cuArrayGetDescriptor_v2) UNUSED(cuCtxAttach) UNUSED(cuCtxCreate_v2) UNUSED(cuCtxCreate_v3)
UNUSED(cuCtxCreate_v4) UNUSED(cuCtxDisablePeerAccess) UNUSED(cuCtxEnablePeerAccess) UNUSED(cuCtxGetApiVersion)
UNUSED(cuCtxGetCacheConfig) UNUSED(cuCtxGetLimit) UNUSED(cuCtxGetSharedMemConfig) UNUSED(cuCtxSetCacheConfig)
UNUSED(cuCtxSetLimit) UNUSED(cuCtxSetSharedMemConfig) UNUSED(cuDeviceCanAccessPeer) UNUSED(cuDeviceGetByPCIBusId)
UNUSED(cuDeviceGetPCIBusId) UNUSED(cuEventElapsedTime) UNUSED(cuFuncGetAttribute)
UNUSED(cuFuncSetCacheConfig) UNUSED(cuFuncSetSharedSize) UNUSED(cuIpcCloseMemHandle)
UNUSED(cuIpcGetEventHandle) UNUSED(cuIpcGetMemHandle) UNUSED(cuIpcOpenEventHandle) UNUSED(cuIpcOpenMemHandle_v2)
UNUSED(cuLaunch) UNUSED(cuLaunchGrid) UNUSED(cuLaunchGridAsync) UNUSED(cuLinkAddData_v2) UNUSED(cuLinkAddFile_v2)
UNUSED(cuLinkComplete) UNUSED(cuLinkCreate_v2) UNUSED(cuLinkDestroy) UNUSED(cuMemAllocManaged)
UNUSED(cuMemAllocPitch_v2) UNUSED(cuMemGetAddressRange_v2) UNUSED(cuMemHostGetFlags) UNUSED(cuMemHostRegister_v2)
UNUSED(cuMemHostUnregister) UNUSED(cuMemcpy2DAsync_v2) UNUSED(cuMemcpy2DUnaligned_v2) UNUSED(cuMemcpy2D_v2)
UNUSED(cuMemcpy3DAsync_v2) UNUSED(cuMemcpy3DPeer) UNUSED(cuMemcpy3DPeerAsync) UNUSED(cuMemcpy3D_v2)
UNUSED(cuMemcpyAtoA_v2) UNUSED(cuMemcpyAtoD_v2) UNUSED(cuMemcpyAtoH_v2) UNUSED(cuMemcpyDtoA_v2)
UNUSED(cuMemcpyDtoD_v2) UNUSED(cuMemcpyHtoA_v2) UNUSED(cuMemcpyPeer) UNUSED(cuMemcpyPeerAsync)
UNUSED(cuMemsetD16Async) UNUSED(cuMemsetD16_v2) UNUSED(cuMemsetD2D16Async) UNUSED(cuMemsetD2D16_v2)
UNUSED(cuMemsetD2D32Async) UNUSED(cuMemsetD2D32_v2) UNUSED(cuMemsetD2D8Async) UNUSED(cuMemsetD2D8_v2)
UNUSED(cuMemsetD32Async) UNUSED(cuMemsetD32_v2) UNUSED(cuMemsetD8Async) UNUSED(cuMemsetD8_v2)
UNUSED(cuModuleGetGlobal_v2) UNUSED(cuModuleGetSurfRef) UNUSED(cuModuleGetTexRef) UNUSED(cuModuleLoad)
UNUSED(cuParamSetSize) UNUSED(cuParamSetTexRef) UNUSED(cuParamSetf) UNUSED(cuParamSeti)
UNUSED(cuParamSetv) UNUSED(cuProfilerInitialize) UNUSED(cuProfilerStart) UNUSED(cuProfilerStop)
UNUSED(cuStreamAttachMemAsync) UNUSED(cuSurfRefGetArray) UNUSED(cuSurfRefSetArray) UNUSED(cuTexRefCreate)
UNUSED(cuTexRefDestroy) UNUSED(cuTexRefGetAddressMode) UNUSED(cuTexRefGetAddress_v2) UNUSED(cuTexRefGetArray)
UNUSED(cuTexRefGetFilterMode) UNUSED(cuTexRefGetFlags) UNUSED(cuTexRefGetFormat) UNUSED(cuTexRefSetAddress2D_v3)
UNUSED(cuTexRefSetAddressMode) UNUSED(cuTexRefSetAddress_v2) UNUSED(cuTexRefSetArray) UNUSED(cuTexRefSetFilterMode)
UNUSED(cuTexRefSetFlags) UNUSED(cuTexRefSetFormat)
/* clang-format on */

/* ---- for tests ---- */

EXPORT void standin_plug_in(int devices, int major, int minor, int integrated) {
  now.devices = devices, now.major = major, now.minor = minor, now.integrated = integrated;
  now.initialized = now.initialized && devices;
  now.sticky = 0, now.ahead = 0;
  for (int index = 0; index < now.names; index++) now.calls[index].calls = now.calls[index].fails = 0;
  while (now.problem_count) free(now.problems[--now.problem_count]);
}

EXPORT void standin_connect(Run run, Freed freed) { now.run = run, now.freed = freed; }

EXPORT void standin_fail(const char *name, int fails, long which, int status) {
  pthread_mutex_lock(&lock);
  int index = find(name);
  now.calls[index].fails = fails, now.calls[index].fails_at = which, now.calls[index].status = status;
  pthread_mutex_unlock(&lock);
}

EXPORT void standin_run_ahead(long pieces) { now.ahead = pieces; }

EXPORT long standin_calls(const char *name) {
  pthread_mutex_lock(&lock);
  long calls = now.calls[find(name)].calls;
  pthread_mutex_unlock(&lock);
  return calls;
}

EXPORT const char *standin_name(int index) { return index < now.names ? now.calls[index].name : NULL; }

/* A run of TensorRT's or a kernel: `number` goes to the function that `standin_connect` was given. */
EXPORT CUresult standin_launch(CUstream stream, long number) {
  pthread_mutex_lock(&lock);
  return end(depth ? put(stream, (struct Work){.task = CALL, .number = number}) : INVALID_CONTEXT);
}

/* What a kernel of that name does; `bytes` of each of its parameters. */
EXPORT void standin_kernel(const char *name, Kernel run, int parameters, const size_t *bytes) {
  struct Kernel *kernel = calloc(1, sizeof *kernel);
  snprintf(kernel->name, sizeof kernel->name, "%s", name);
  kernel->run = run, kernel->parameters = parameters, kernel->next = now.kernels, now.kernels = kernel;
  memcpy(kernel->bytes, bytes, (size_t)parameters * sizeof *bytes);
}

EXPORT int standin_is_recording(CUstream stream) { return known(stream) && stream->recording != NULL; }
EXPORT int standin_break_recording(CUstream stream) { return stream->broken = 1; }
EXPORT uint8_t *standin_reach(CUdeviceptr address, size_t bytes) {
  pthread_mutex_lock(&lock);
  uint8_t *host = reach(address, bytes);
  pthread_mutex_unlock(&lock);
  return host;
}
EXPORT int standin_depth(void) { return depth; }
EXPORT unsigned standin_context_flags(int device) { return now.primary[device].flags; }

EXPORT const char *standin_problem(int index) { return index < now.problem_count ? now.problems[index] : NULL; }

EXPORT long standin_left(const char *what) {
  long streams = 0, retains = 0;
  for (CUstream stream = now.streams; stream; stream = stream->next) streams++;
  for (int device = 0; device < MAX_DEVICES; device++) retains += now.primary[device].retains;
  const struct { const char *name; long count; } counts[] = {
      {"device allocations", now.device_blocks}, {"page-locked allocations", now.pinned_blocks},
      {"graphs", now.graphs}, {"events", now.events}, {"streams", streams}, {"modules", now.modules},
      {"pushed contexts", depths}, {"retained contexts", retains}};
  for (size_t index = 0; index < sizeof counts / sizeof *counts; index++)
    if (!strcmp(counts[index].name, what)) return counts[index].count;
  return -1;
}

__attribute__((constructor)) static void start(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutex_init(&lock, &attributes);
  const char *machine = getenv("STAND_IN_GPU"); /* of a program's own process: "devices major minor integrated" */
  if (machine) sscanf(machine, "%d %d %d %d", &now.devices, &now.major, &now.minor, &now.integrated);
}

/* At the end of a process: what was left, and how often what was called. */
__attribute__((destructor)) static void report(void) {
  const char *path = getenv("STAND_IN_REPORT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  static const char *const LEFT[] = {"device allocations", "page-locked allocations", "graphs", "events", "streams",
                                     "modules", "pushed contexts", "retained contexts"};
  fprintf(file, "{\"left\": {");
  for (size_t index = 0; index < sizeof LEFT / sizeof *LEFT; index++)
    fprintf(file, "%s\"%s\": %ld", index ? ", " : "", LEFT[index], standin_left(LEFT[index]));
  fprintf(file, "}, \"problems\": [");
  for (int index = 0; index < now.problem_count; index++)
    fprintf(file, "%s\"%s\"", index ? ", " : "", now.problems[index]);
  fprintf(file, "], \"calls\": {");
  for (int index = 0; index < now.names; index++)
    fprintf(file, "%s\"%s\": %ld", index ? ", " : "", now.calls[index].name, now.calls[index].calls);
  fprintf(file, "}}\n");
  fclose(file);
}
