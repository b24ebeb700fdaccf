// Preloaded, shows a program an x86 CPU that has AVX2 and nothing newer: no AVX-512, VNNI or AMX. Its instructions run
// as they are, at this CPU's speed. Needs Linux and a CPU that can refuse CPUID, or one that has nothing newer anyway.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012, FEATURES = 7 };

#define BIT(n) (1u << (n))
// Of leaf 7 in Intel's manual, volume 2A, CPUID: AVX-512 in all three, VAES to VNNI in ECX, AMX in EDX.
static const uint32_t newer_b = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const uint32_t newer_c = BIT(1) | BIT(6) | BIT(8) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(14);
static const uint32_t newer_d = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);

static long allow_cpuid(int yes) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, yes); }

static int set_action(int signal_number, const struct sigaction* action, struct sigaction* before) {
    int (*real)(int, const struct sigaction*, struct sigaction*);
    *(void**)&real = dlsym(RTLD_NEXT, "sigaction");
    return real(signal_number, action, before);
}

static void on_cpuid(int signal_number, siginfo_t* info, void* context) {
    (void)info;
    greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
    const uint8_t* code = (const uint8_t*)registers[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {  // an error of the program's own
        set_action(signal_number, &(const struct sigaction){.sa_handler = SIG_DFL}, NULL);
        return;
    }
    const uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX];
    uint32_t a, b, c, d;
    allow_cpuid(1);
    __cpuid_count(leaf, part, a, b, c, d);
    allow_cpuid(0);
    if (leaf == FEATURES && part == 0) b &= ~newer_b, c &= ~newer_c, d &= ~newer_d;
    if (leaf == FEATURES && part > 0) a = b = c = d = 0;
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

// Python's fault handler, PyTorch's workers and GCC would take the signal away.
int sigaction(int signal_number, const struct sigaction* action, struct sigaction* before) {
    return set_action(signal_number, signal_number == SIGSEGV ? NULL : action, before);
}

sighandler_t signal(int signal_number, sighandler_t handler) {
    const struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct sigaction before;
    return sigaction(signal_number, &action, &before) == 0 ? before.sa_handler : SIG_ERR;
}

__attribute__((constructor)) static void hide(void) {
    const struct sigaction action = {.sa_sigaction = on_cpuid, .sa_flags = SA_SIGINFO | SA_NODEFER};
    set_action(SIGSEGV, &action, NULL);
    uint32_t a, b = 0, c, d;
    __get_cpuid_count(FEATURES, 0, &a, &b, &c, &d);
    // Programs that an emulated one starts are not emulated: they see all, and go on.
    if ((b & newer_b) && !getenv("ONLY_AVX2_EMULATED") && allow_cpuid(0) != 0) {
        fputs("only_avx2: this CPU, or its kernel, cannot hide what it has\n", stderr);
        exit(1);
    }
}

// The kernel's list of what the CPU has, without what is hidden.
static int open_cpuinfo(void) {
    static const char* const newer[] = {" avx512", " avx_vnni", " amx_"};
    const int from = (int)syscall(SYS_openat, AT_FDCWD, "/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    const int to = memfd_create("cpuinfo", MFD_CLOEXEC);
    FILE *in = fdopen(from, "r"), *out = fdopen(dup(to), "w");
    char* line = NULL;
    size_t size = 0;
    while (in && out && getline(&line, &size, in) > 0) {
        for (size_t i = 0; i < sizeof newer / sizeof *newer; ++i) {
            for (char* at = line; (at = strstr(at, newer[i]));) {
                const size_t length = 1 + strcspn(at + 1, " \n");
                memmove(at, at + length, strlen(at + length) + 1);
            }
        }
        fputs(line, out);
    }
    free(line);
    if (in) fclose(in);
    if (out) fclose(out);
    lseek(to, 0, SEEK_SET);
    return to;
}

static int open_any(const char* path, int flags, va_list more) {
    if (strcmp(path, "/proc/cpuinfo") == 0) return open_cpuinfo();
    const int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char* path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const int file = open_any(path, flags, more);
    va_end(more);
    return file;
}

int open64(const char* path, int flags, ...) __attribute__((alias("open")));
