// A thread of the emulated device: a function on a stack of its own that can be left in the middle and taken up again.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <sys/mman.h>

namespace shim {

// Not a power of two: the tops of all stacks would share a few lines of the cache.
constexpr size_t STACK_BYTES = (256 << 10) + 5 * 64;

#if defined(__x86_64__)

// Saves the registers that a call keeps on the stack that is left, and takes those of the stack that is entered. It
// returns by `ret` on purpose: threads of a warp wait in the same places, so the processor predicts where it returns to.
extern "C" void shim_switch(void** leave, void* enter);
asm(R"(
.text
.weak shim_switch
.hidden shim_switch
.type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size shim_switch, .-shim_switch
)");

struct Fiber {
    void* at = nullptr;

    // Makes `entry` what runs on `stack` when it is entered. `entry` never returns.
    void start(char* stack, void (*entry)()) {
        // As if `entry` had been called: a return address that is never used lies on top of it.
        void** top = reinterpret_cast<void**>(stack + STACK_BYTES) - 2;
        top[0] = reinterpret_cast<void*>(entry);
        top[1] = nullptr;
        at = top - 6;
        for (int i = 1; i <= 6; ++i) top[-i] = nullptr;
    }
    static void change(Fiber& from, Fiber& to) { shim_switch(&from.at, to.at); }
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
