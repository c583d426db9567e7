// The small steps between products, each in one pass over memory.
//
// Every intermediate that torch would round to the tensor's dtype is rounded here too, so that results agree with the
// unfused model.
#include <algorithm>

#include "api.h"
#include "parallel.h"
#include "simd.h"

namespace puna {
namespace {

constexpr int64_t kAlone = 64 * 1024;  // elements that one thread finishes before a second would have woken

struct Bf16 {
    static constexpr int kSize = 2;
    static PUNA_INLINE VF load(const void* p, int64_t i) { return v_bf16(static_cast<const uint16_t*>(p) + i); }
    static PUNA_INLINE void store(void* p, int64_t i, VF a) { v_store_bf16(static_cast<uint16_t*>(p) + i, a); }
    static PUNA_INLINE VF rounded(VF a) {
        alignas(64) uint16_t h[LANES];
        v_store_bf16(h, a);
        return v_bf16(h);
    }
};

struct Float {
    static constexpr int kSize = 4;
    static PUNA_INLINE VF load(const void* p, int64_t i) { return v_load(static_cast<const float*>(p) + i); }
    static PUNA_INLINE void store(void* p, int64_t i, VF a) { v_store(static_cast<float*>(p) + i, a); }
    static PUNA_INLINE VF rounded(VF a) { return a; }
};

// Up to LANES elements at p[i], the missing ones as zero.
template <class T>
PUNA_INLINE VF load_some(const void* p, int64_t i, int64_t count) {
    if (count >= LANES) return T::load(p, i);
    alignas(64) uint8_t copy[LANES * T::kSize] = {};
    std::memcpy(copy, static_cast<const uint8_t*>(p) + i * T::kSize, size_t(count * T::kSize));
    return T::load(copy, 0);
}

template <class T>
PUNA_INLINE void store_some(void* p, int64_t i, VF a, int64_t count) {
    if (count >= LANES) return T::store(p, i, a);
    alignas(64) uint8_t copy[LANES * T::kSize];
    T::store(copy, 0, a);
    std::memcpy(static_cast<uint8_t*>(p) + i * T::kSize, copy, size_t(count * T::kSize));
}

PUNA_INLINE VF v_subtract(VF a, VF b) { return v_add(a, v_mul(b, v_set(-1.0f))); }

template <class T>
void rms_norm(const void* x, const void* weight, float eps, void* out, int64_t M, int64_t D, int64_t threads) {
    share(M * D <= kAlone ? 1 : threads, M, 1, [&](int64_t first, int64_t last) {
        for (int64_t m = first; m < last; ++m) {
            VF sum = v_zero();
            for (int64_t d = 0; d < D; d += LANES) {
                const VF a = load_some<T>(x, m * D + d, D - d);
                sum = v_fma(a, a, sum);
            }
            const VF by = v_set(1.0f / std::sqrt(v_sum(sum) / float(D) + eps));
            for (int64_t d = 0; d < D; d += LANES) {
                const VF normal = T::rounded(v_mul(load_some<T>(x, m * D + d, D - d), by));
                store_some<T>(out, m * D + d, v_mul(normal, load_some<T>(weight, d, D - d)), D - d);
            }
        }
    });
}

template <class T>
void silu_mul(const void* gate, const void* up, void* out, int64_t count, int64_t threads) {
    share(count <= kAlone ? 1 : threads, count, kAlone / 4, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i += LANES) {
            const VF a = load_some<T>(gate, i, last - i);
            const VF silu = v_div(a, v_add(v_set(1.0f), v_exp(v_mul(a, v_set(-1.0f)))));
            store_some<T>(out, i, v_mul(T::rounded(silu), load_some<T>(up, i, last - i)), last - i);
        }
    });
}

template <class T>
void rotate(const void* x, const float* cosine, const float* sine, void* out, int64_t N, int64_t H, int64_t K,
            int64_t threads) {
    const int64_t half = K / 2;
    share(N * H * K <= kAlone ? 1 : threads, N, 1, [&](int64_t first_row, int64_t last_row) {
        for (int64_t n = first_row; n < last_row; ++n) {
            for (int64_t h = 0; h < H; ++h) {
                const int64_t at = (n * H + h) * K;
                for (int64_t j = 0; j < half; j += LANES) {
                    const int64_t left = half - j;
                    const VF first = load_some<T>(x, at + j, left), second = load_some<T>(x, at + half + j, left);
                    const VF c = load_some<Float>(cosine, n * half + j, left);
                    const VF s = load_some<Float>(sine, n * half + j, left);
                    store_some<T>(out, at + j, v_subtract(v_mul(first, c), v_mul(second, s)), left);
                    store_some<T>(out, at + half + j, v_add(v_mul(second, c), v_mul(first, s)), left);
                }
            }
        }
    });
}

thread_local Scratch row_scratch;

// softmax(scale * s) in place over what each row may see: row r of a block sees `past` + r + 1 of L columns, at most all.
template <class T>
void causal_softmax(void* scores, float scale, int64_t blocks, int64_t rows, int64_t L, int64_t past, int64_t threads) {
    share(blocks * rows * L <= kAlone ? 1 : threads, blocks * rows, 16, [&](int64_t first, int64_t last) {
        float* row = row_scratch.take<float>(L + LANES);
        for (int64_t i = first; i < last; ++i) {
            const int64_t seen = std::min(past + i % rows + 1, L), at = i * L;
            VF top = v_set(-INFINITY), sum = v_zero();
            for (int64_t k = 0; k < seen; k += LANES) {
                VF s = load_some<T>(scores, at + k, seen - k);
                if (seen - k < LANES) {  // the missing ones, which are zero, must not be the largest
                    v_store(row + k, s);
                    for (int64_t j = seen; j < k + LANES; ++j) row[j] = -INFINITY;
                    s = v_load(row + k);
                }
                v_store(row + k, s);
                top = v_max(top, s);
            }
            const VF largest = v_set(-v_largest(top)), by = v_set(scale);
            for (int64_t k = 0; k < seen; k += LANES) {
                VF e = v_exp(v_mul(v_add(v_load(row + k), largest), by));
                if (seen - k < LANES) {
                    v_store(row + k, e);
                    for (int64_t j = seen; j < k + LANES; ++j) row[j] = 0.0f;
                    e = v_load(row + k);
                }
                v_store(row + k, e);
                sum = v_add(sum, e);
            }
            const VF norm = v_set(1.0f / v_sum(sum));
            for (int64_t k = 0; k < seen; k += LANES) {
                store_some<T>(scores, at + k, v_mul(v_load(row + k), norm), seen - k);
            }
            std::memset(static_cast<uint8_t*>(scores) + T::kSize * (at + seen), 0, size_t(T::kSize * (L - seen)));
        }
    });
}

}  // namespace
}  // namespace puna

using namespace puna;

// Tensors are bfloat16 where `bf16` is set, else float32.
extern "C" {

// x and out (M, D), weight (D,).
void puna_rms_norm(const void* x, const void* weight, float eps, void* out, int bf16, int64_t M, int64_t D,
                   int64_t threads) {
    bf16 ? rms_norm<Bf16>(x, weight, eps, out, M, D, threads) : rms_norm<Float>(x, weight, eps, out, M, D, threads);
}

void puna_silu_mul(const void* gate, const void* up, void* out, int bf16, int64_t count, int64_t threads) {
    bf16 ? silu_mul<Bf16>(gate, up, out, count, threads) : silu_mul<Float>(gate, up, out, count, threads);
}

// x and out (N, H, K); cosine and sine (N, K/2), float32.
void puna_rotate(const void* x, const float* cosine, const float* sine, void* out, int bf16, int64_t N, int64_t H,
                 int64_t K, int64_t threads) {
    bf16 ? rotate<Bf16>(x, cosine, sine, out, N, H, K, threads) : rotate<Float>(x, cosine, sine, out, N, H, K, threads);
}

// scores (blocks, rows, L).
void puna_causal_softmax(void* scores, int bf16, float scale, int64_t blocks, int64_t rows, int64_t L, int64_t past,
                         int64_t threads) {
    bf16 ? causal_softmax<Bf16>(scores, scale, blocks, rows, L, past, threads)
         : causal_softmax<Float>(scores, scale, blocks, rows, L, past, threads);
}

}  // extern "C"
