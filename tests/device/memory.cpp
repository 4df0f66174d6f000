// Memory of the emulated device. Each allocation has guard pages around it and ends as close to the one after it as its alignment
// allows. Fresh memory contains 0xff, and no address is used twice.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include "emu.h"

namespace emu::memory {

namespace {

constexpr size_t PAGE = 4096;
constexpr unsigned char CANARY = 0xa5;
// Fresh memory is a private mapping of a file full of 0xff, so that only written pages use memory.
constexpr size_t POISON_BYTES = 16 << 20;

struct Block {
    size_t bytes, mapped;
    char* map;
    int device;
    bool constant = false;  // while a kernel runs that must not write to it
};
std::map<uintptr_t, Block> live, dead;
std::map<uintptr_t, size_t> pinned;
size_t used_bytes[16], most, taken;

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// CUDA's alignment is 256. A smaller value brings the end of an allocation closer to the page after it.
size_t alignment() {
    static const size_t it = size_t(setting("ALIGN", 256));
    return it;
}

int poison_file() {
    static const int file = [] {
        const int file = memfd_create("poison", MFD_CLOEXEC);
        if (file < 0 || ftruncate(file, POISON_BYTES)) return -1;
        void* all = mmap(nullptr, POISON_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (all == MAP_FAILED) return -1;
        memset(all, 0xff, POISON_BYTES);
        munmap(all, POISON_BYTES);
        return file;
    }();
    return file;
}

// Maps whole pages full of 0xff without touching them.
bool map_poison(char* at, size_t bytes) {
    const int file = poison_file();
    for (size_t done = 0; done < bytes; done += POISON_BYTES) {
        const size_t part = std::min(POISON_BYTES, bytes - done);
        const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
        if (mmap(at + done, part, PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED) return false;
    }
    return true;
}

std::map<uintptr_t, Block>::const_iterator holder(const std::map<uintptr_t, Block>& in, uintptr_t at) {
    auto it = in.upper_bound(at);
    if (it == in.begin()) return in.end();
    --it;
    return at < it->first + it->second.bytes ? it : in.end();
}

void check_canaries(uintptr_t at, const Block& block) {
    const auto* start = reinterpret_cast<const unsigned char*>(at);
    const auto* first = reinterpret_cast<const unsigned char*>(block.map) + PAGE;
    const auto* end = reinterpret_cast<const unsigned char*>(block.map) + block.mapped - PAGE;
    for (const unsigned char* it = first; it < start; ++it)
        if (*it != CANARY)
            objection("byte %td of an allocation of %zu bytes was written", it - start, block.bytes);
    for (const unsigned char* it = start + block.bytes; it < end; ++it)
        if (*it != CANARY)
            objection("byte %td of an allocation of %zu bytes was written", it - start, block.bytes);
}

}  // namespace

size_t total() {
    static const size_t it = size_t(setting("MEMORY_MIB", long(profile().mib))) << 20;
    return it;
}
size_t used(int device) { return used_bytes[device]; }
size_t peak() { return most; }
size_t allocations() { return taken; }
size_t left() { return live.size(); }
size_t releases() { return dead.size(); }

bool allocate(int device, uintptr_t* to, size_t bytes) {
    ++taken;
    static const size_t failing = size_t(setting("FAIL_ALLOCATION", 0));
    if (failing == taken || used_bytes[device] + bytes > total()) return false;
    const size_t inner = round_up(bytes, std::max(PAGE, alignment())), mapped = inner + 2 * PAGE;
    char* map = static_cast<char*>(mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (map == MAP_FAILED) return false;
    if (!map_poison(map + PAGE, inner)) objection("the host has no memory for an allocation of %zu bytes", bytes);
    const uintptr_t at = reinterpret_cast<uintptr_t>(map) + PAGE + inner - round_up(bytes, alignment());
    memset(map + PAGE, CANARY, at - uintptr_t(map) - PAGE);
    memset(reinterpret_cast<char*>(at) + bytes, CANARY, uintptr_t(map) + mapped - PAGE - at - bytes);
    live[at] = {bytes, mapped, map, device};
    used_bytes[device] += bytes;
    most = std::max(most, used_bytes[device]);
    *to = at;
    return true;
}

void release(uintptr_t at, int device) {
    const auto it = live.find(at);
    if (it == live.end()) {
        const char* kind = dead.count(at) ? "was freed before" : "is not the start of an allocation";
        objection("free of %p, which %s", reinterpret_cast<void*>(at), kind);
    }
    const Block block = it->second;
    if (block.device != device) objection("free of memory of device %d on device %d", block.device, device);
    check_canaries(at, block);
    used_bytes[device] -= block.bytes;
    // Never allocated again.
    mmap(block.map, block.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    dead[at] = block;
    live.erase(it);
}

void check(const char* what, const void* start, size_t bytes) {
    if (!bytes) return;
    const size_t there = reach(what, -1, start);
    if (bytes > there) {
        const auto it = holder(live, uintptr_t(start));
        objection(
            "%s: %zu bytes from byte %zu of an allocation of %zu", what, bytes, uintptr_t(start) - it->first,
            it->second.bytes);
    }
}

size_t reach(const char* what, int device, const void* start) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(start);
    const auto it = holder(live, at);
    if (it == live.end()) {
        if (holder(dead, at) != dead.end()) objection("%s: %p is memory that was freed", what, start);
        objection("%s: %p is not device memory", what, start);
    }
    if (device >= 0 && it->second.device != device)
        objection("%s: memory of device %d on device %d", what, it->second.device, device);
    return it->first + it->second.bytes - at;
}

uintptr_t start_of(const void* at) { return holder(live, uintptr_t(at))->first; }

void set_constant(const void* at, bool constant) {
    Block& block = live[start_of(at)];
    block.constant = constant;
    const int access = constant ? PROT_READ : PROT_READ | PROT_WRITE;
    if (mprotect(block.map + PAGE, block.mapped - 2 * PAGE, access)) objection("the host cannot protect an allocation");
}

void fill(uintptr_t to, unsigned value, unsigned value_bytes, size_t count) {
    if (value_bytes == 4 && value != (value & 0xff) * 0x01010101u) {
        for (size_t i = 0; i < count; ++i) memcpy(reinterpret_cast<char*>(to) + 4 * i, &value, 4);
        return;
    }
    const size_t bytes = count * value_bytes;
    // Large fills with 0 and 0xff are mappings too.
    const uintptr_t first = round_up(to, PAGE), end = (to + bytes) / PAGE * PAGE;
    const unsigned byte = value & 0xff;
    if (bytes < (1 << 20) || (byte != 0 && byte != 0xff)) {
        memset(reinterpret_cast<void*>(to), int(byte), bytes);
        return;
    }
    memset(reinterpret_cast<void*>(to), int(byte), first - to);
    memset(reinterpret_cast<void*>(end), int(byte), to + bytes - end);
    char* at = reinterpret_cast<char*>(first);
    if (byte == 0xff) {
        if (map_poison(at, end - first)) return;
    } else {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
        if (mmap(at, end - first, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED) return;
    }
    objection("the host cannot map %zu bytes", size_t(end - first));
}

void* allocate_host(size_t bytes) {
    void* at = mmap(nullptr, round_up(bytes, PAGE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    memset(at, 0xff, bytes);
    pinned[reinterpret_cast<uintptr_t>(at)] = bytes;
    return at;
}

bool release_host(void* at) {
    const auto it = pinned.find(reinterpret_cast<uintptr_t>(at));
    if (it == pinned.end()) return false;
    // Never allocated again; any access is a fault.
    mmap(at, round_up(it->second, PAGE), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    pinned.erase(it);
    return true;
}

bool is_pinned(const void* start) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(start);
    auto it = pinned.upper_bound(at);
    return it != pinned.begin() && at < (--it)->first + it->second;
}

std::string describe(uintptr_t at) {
    for (const auto* in : {&live, &dead}) {
        for (const auto& [start, block] : *in) {
            const uintptr_t map = reinterpret_cast<uintptr_t>(block.map);
            if (at < map || at >= map + block.mapped) continue;
            char text[160];
            snprintf(
                text, sizeof text, "byte %td of %s of %zu bytes", ptrdiff_t(at - start),
                in == &dead ? "a freed allocation" : block.constant ? "a constant allocation" : "an allocation", block.bytes);
            return text;
        }
    }
    return "";
}

void check_all() {
    for (const auto& [at, block] : live) check_canaries(at, block);
}

}  // namespace emu::memory
