// Memory with guard pages: before and after every allocation is a page that cannot be accessed.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace shim {

struct Region {
    unsigned char* start = nullptr;
    size_t bytes = 0;

    bool holds(const void* address, size_t length) const {
        const unsigned char* at = static_cast<const unsigned char*>(address);
        return at >= start && at + length <= start + bytes;
    }
};

constexpr size_t PAGE = 4096;
// The fill value for the rest of the pages of an allocation.
constexpr unsigned char GUARD = 0xa5;

inline size_t pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

// Ends as close to the guard page as an alignment of 16 allows, so that a read past the end is also caught.
inline Region guarded(size_t bytes) {
    const size_t inner = pages(bytes + 16);
    void* all = mmap(nullptr, inner + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) abort();
    unsigned char* first = static_cast<unsigned char*>(all) + PAGE;
    if (mprotect(first, inner, PROT_READ | PROT_WRITE)) abort();
    memset(first, GUARD, inner);
    return {first + inner - (bytes + 15) / 16 * 16, bytes};
}

inline unsigned char* first_page(const Region& region) {
    return region.start + (region.bytes + 15) / 16 * 16 - pages(region.bytes + 16);
}

inline void release(Region& region) {
    munmap(first_page(region) - PAGE, pages(region.bytes + 16) + 2 * PAGE);
    region = {};
}

// Whether the bytes between the allocation and the guard pages are unchanged.
inline bool guards_are_whole(const Region& region) {
    const auto whole = [](const unsigned char* from, const unsigned char* to) {
        return from == to || (*from == GUARD && !memcmp(from, from + 1, size_t(to - from) - 1));
    };
    const unsigned char* const end = region.start + region.bytes;
    return whole(first_page(region), region.start) && whole(end, end + (16 - region.bytes % 16) % 16);
}

}  // namespace shim
