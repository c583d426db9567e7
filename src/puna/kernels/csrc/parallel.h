// Sharing rows among threads.
//
// The threads are those that torch already keeps (its OpenMP runtime, handed over by build.py), so that no second pool
// competes for the same cores. Without such a runtime a small pool of our own stands in (runtime.cpp).
// Work is dealt out in pieces from a counter: on a busy machine a thread that loses its core does not hold up the rest,
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
    struct Shared {
        std::atomic<int64_t> next{0};
        int64_t count, piece;
        const Work* work;
    } shared;
    shared.count = count;
    shared.piece = piece;
    shared.work = &work;
    const int64_t pieces = (count + piece - 1) / piece;
    run_parallel(
        int(threads < pieces ? threads : pieces),
        [](void* data) {
            auto* s = static_cast<Shared*>(data);
            for (;;) {
                const int64_t first = s->next.fetch_add(s->piece, std::memory_order_relaxed);
                if (first >= s->count) return;
                const int64_t last = first + s->piece;
                (*s->work)(first, last < s->count ? last : s->count);
            }
        },
        &shared);
}

}  // namespace puna
