// A thread of the emulated device: a function on its own stack that can be suspended and resumed.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <sys/mman.h>

namespace shim {

// Not a power of two: the tops of all stacks would share a few lines of the cache.
constexpr size_t STACK_BYTES = (256 << 10) + 5 * 64;

#if defined(__x86_64__)

struct Fiber {
    // Where it resumes: the stack, the instruction, and the one register that the compiler reserves.
    void *stack, *instruction, *frame;

    // Makes `entry` run on `stack` when it is entered. `entry` never returns.
    void start(char* stack, void (*entry)()) {
        // As if `entry` had been called: a return address that is never used is on top of the stack.
        void** top = reinterpret_cast<void**>(stack + STACK_BYTES) - 1;
        top[0] = nullptr;
        this->stack = top;
        instruction = reinterpret_cast<void*>(entry);
        frame = nullptr;
    }
    // Leaves `from` and enters `to`, in the middle of the function that it is inlined into. The compiler knows that no register is
    // preserved and saves the ones that it needs. Threads of a warp wait in the same places, so the processor can predict the
    // jump.
    static __attribute__((always_inline)) inline void change(Fiber& from, Fiber& to) {
        Fiber *leave = &from, *enter = &to;
        asm volatile(R"(
            leaq 1f(%%rip), %%rax
            movq %%rsp, (%0)
            movq %%rax, 8(%0)
            movq %%rbp, 16(%0)
            movq (%1), %%rsp
            jmp *8(%1)
            1: movq 16(%1), %%rbp
            )"
                     : "+D"(leave), "+S"(enter)
                     :
                     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory",
                       "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15"
#if defined(__AVX512F__)
                       , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",
                       "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#endif
        );
    }
};

#else

}  // namespace shim
#include <ucontext.h>
namespace shim {

struct Fiber {
    ucontext_t at;

    void start(char* stack, void (*entry)()) {
        getcontext(&at);
        at.uc_stack.ss_sp = stack;
        at.uc_stack.ss_size = STACK_BYTES;
        at.uc_link = nullptr;
        makecontext(&at, entry, 0);
    }
    static void change(Fiber& from, Fiber& to) { swapcontext(&from.at, &to.at); }
};

#endif

// `count` stacks side by side.
inline char* new_stacks(size_t count) {
    void* stacks =
        mmap(nullptr, count * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) abort();
    return static_cast<char*>(stacks);
}

}  // namespace shim
