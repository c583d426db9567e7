// The threads behind parallel.h, and what the library says of itself.
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "parallel.h"
#include "simd.h"

namespace puna {
namespace {

// The entry point of GCC's OpenMP runtime that `#pragma omp parallel` compiles to: a stable interface since GCC 4.9,
// which LLVM's and Intel's runtimes provide as well.
using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
GompParallel gomp_parallel = nullptr;

// Used where torch has no OpenMP runtime to share. Its threads sleep between calls.
class Pool {
  public:
    void run(int threads, void (*body)(void*), void* data) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) {  // another caller has the pool: its cores are taken anyway
            body(data);
            return;
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            try {
                for (; workers_ < threads - 1; ++workers_) {
                    std::thread(&Pool::serve, this, workers_, round_).detach();
                }
            } catch (const std::system_error&) {  // the system gives no more threads: those that run do the work
            }
            body_ = body;
            data_ = data;
            wanted_ = busy_ = std::min(workers_, threads - 1);
            ++round_;
        }
        start_.notify_all();
        body(data);
        std::unique_lock<std::mutex> lock(mutex_);
        end_.wait(lock, [this] { return busy_ == 0; });
    }

  private:
    void serve(int index, long seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            start_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            if (index >= wanted_) continue;
            auto* body = body_;
            auto* data = data_;
            lock.unlock();
            body(data);
            lock.lock();
            if (--busy_ == 0) end_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable start_, end_;
    void (*body_)(void*) = nullptr;
    void* data_ = nullptr;
    int workers_ = 0, wanted_ = 0, busy_ = 0;
    long round_ = 0;
};

// Never destroyed, because its threads outlive main; a forked child has no threads and gets a new one.
Pool& pool() {
    static std::mutex guard;
    static Pool* current = nullptr;
    static pid_t owner = 0;
    std::lock_guard<std::mutex> lock(guard);
    if (current == nullptr || owner != getpid()) {
        current = new Pool;
        owner = getpid();
    }
    return *current;
}

}  // namespace

void run_parallel(int threads, void (*body)(void*), void* data) {
    if (gomp_parallel != nullptr) {
        gomp_parallel(body, data, unsigned(threads), 0);
    } else {
        pool().run(threads, body, data);
    }
}

}  // namespace puna

extern "C" {

int puna_version() { return 1; }

const char* puna_instruction_set() { return PUNA_INSTRUCTION_SET; }

// `entry` is the address of GOMP_parallel, or null for the pool of this library.
void puna_use_threads(void* entry) { puna::gomp_parallel = reinterpret_cast<puna::GompParallel>(entry); }

// Reads `count` words once and does next to nothing with them: how fast can memory be?
uint64_t puna_read(const uint64_t* words, int64_t count, int64_t threads) {
    std::atomic<uint64_t> total{0};
    puna::share(threads, count, 1 << 15, [&](int64_t first, int64_t last) {
        uint64_t sums[8] = {};
        int64_t i = first;
        for (; i + 8 <= last; i += 8) {
            puna::prefetch(words + i + 256);
            for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
        }
        for (; i < last; ++i) sums[0] += words[i];
        for (int j = 0; j < 8; ++j) total += sums[j];
    });
    return total;
}

}  // extern "C"
