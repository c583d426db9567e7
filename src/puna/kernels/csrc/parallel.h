// Sharing rows among threads.
//
// The threads are those that torch already keeps (its OpenMP runtime, handed over by build.py), so that no second pool
// competes for the same cores. Without such a runtime a small pool of our own stands in (runtime.cpp).
// Each thread has a range of its own, since memory is fastest read in order, and takes pieces of it from a counter; one
// that is done takes pieces of the others'. So on a busy machine a thread that loses its core does not hold up the rest,
// and the result does not depend on how many threads came.
#pragma once

#include <atomic>
#include <cstdint>

namespace puna {

// Runs body(data) on up to `threads` threads, the caller among them, and returns when all have ended.
void run_parallel(int threads, void (*body)(void*), void* data);

// Calls work(first, last) for pieces of [0, count) of at most `piece` items.
template <class Work>
void share(int64_t threads, int64_t count, int64_t piece, const Work& work) {
    if (count <= 0) return;
    if (piece < 1) piece = 1;
    if (threads <= 1 || count <= piece) {
        work(int64_t(0), count);
        return;
    }
    constexpr int64_t kMost = 256;
    struct alignas(64) Range {  // of one thread: a cache line each, or they would fight for it
        std::atomic<int64_t> next;
        int64_t last;
    };
    struct Shared {
        Range ranges[kMost];
        std::atomic<int64_t> arrived{0};
        int64_t count, piece;
        const Work* work;
    } shared;
    const int64_t pieces = (count + piece - 1) / piece;
    shared.count = threads < pieces ? threads : pieces;
    if (shared.count > kMost) shared.count = kMost;
    shared.piece = piece;
    shared.work = &work;
    for (int64_t i = 0; i < shared.count; ++i) {
        shared.ranges[i].next.store(pieces * i / shared.count * piece, std::memory_order_relaxed);
        shared.ranges[i].last = pieces * (i + 1) / shared.count * piece;
    }
    shared.ranges[shared.count - 1].last = count;
    run_parallel(
        int(shared.count),
        [](void* data) {
            auto* s = static_cast<Shared*>(data);
            const int64_t own = s->arrived.fetch_add(1, std::memory_order_relaxed) % s->count;
            for (int64_t i = 0; i < s->count; ++i) {
                Range& range = s->ranges[(own + i) % s->count];
                for (;;) {
                    const int64_t first = range.next.fetch_add(s->piece, std::memory_order_relaxed);
                    if (first >= range.last) break;
                    const int64_t last = first + s->piece;
                    (*s->work)(first, last < range.last ? last : range.last);
                }
            }
        },
        &shared);
}

}  // namespace puna
