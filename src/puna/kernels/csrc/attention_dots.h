// The two products of attention over a run of cached tokens: queries with keys, and weights with values.
//
// Up to four query heads that share a key head are taken together, so that each key and value is decoded once for all of
// them. In float32 every cache can be read. Where both queries and the machine speak bf16 the products are of bf16 pairs:
// keys in pairs of channels, values in pairs of tokens; a weight of the softmax is then rounded to bf16, an error
// below that of the bf16 result. int8 and E4M3 codes are exact in bf16.
#pragma once

#include "dots.h"

namespace puna {

constexpr int64_t kRun = 64;  // tokens whose scores are held at once

// Tokens that lie one behind the other, a page at most, ...
struct Run {
    const uint8_t *keys, *values;
    int64_t key_stride, value_stride, count;
};

// ... and up to kRun tokens of several pages.
struct Stretch {
    Run runs[kRun];
    int64_t pages = 0, count = 0;
    bool scaled = false;
    alignas(64) float key_scale[kRun], value_scale[kRun];
};

struct DecodeFloat {
    static constexpr int kSize = 4;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_load(reinterpret_cast<const float*>(p)); }
};

struct DecodeF16 {
    static constexpr int kSize = 2;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_f16(p); }
};

// Queries with keys ---------------------------------------------------------------------------------------------------
//
// A step multiplies kElements channels (kBytes of a key) with kQueryBytes of a query; order() says where a query's
// channel goes.

template <class Decode>
struct FloatStep {
    static constexpr int kElements = LANES, kBytes = LANES * Decode::kSize, kQueryBytes = LANES * 4;
    static constexpr float kGain = Decode::kGain;
    using Keys = VF;
    static PUNA_INLINE Keys load(const uint8_t* p) { return Decode::load(p); }
    static PUNA_INLINE VF add(VF acc, const Keys& k, const uint8_t* q) {
        return v_fma(k, v_load(reinterpret_cast<const float*>(q)), acc);
    }
};

#if defined(PUNA_FP8_DOT)
#define PUNA_PAIRS 1
struct Bf16Step {
    static constexpr int kElements = 32, kBytes = 64, kQueryBytes = 64;
    static constexpr float kGain = 1.0f;
    using Keys = __m512bh;
    static PUNA_INLINE Keys load(const uint8_t* p) { return Bf16Dot::load({p, nullptr}); }
    static PUNA_INLINE VF add(VF acc, const Keys& k, const uint8_t* q) { return Bf16Dot::dot(acc, k, q, 0); }
    static PUNA_INLINE int64_t order(int64_t k) { return k; }
};

template <class Dot>  // Fp8Dot or Int8Bf16Dot
struct CodeStep {
    static constexpr int kElements = 64, kBytes = 64, kQueryBytes = 128;
    static constexpr float kGain = 1.0f;
    using Keys = Bf16Pair;
    static PUNA_INLINE Keys load(const uint8_t* p) { return Dot::load({p, nullptr}); }
    static PUNA_INLINE VF add(VF acc, const Keys& k, const uint8_t* q) { return Dot::dot(acc, k, q, 0); }
    static PUNA_INLINE int64_t order(int64_t k) { return fp8_order(k); }
};
#endif

// The sums over the lanes of 4 x 4 vectors: out[r][t] of sums[4 r + t].
PUNA_INLINE void sum_all(const VF* sums, int heads, float* out, int64_t out_stride) {
#if defined(PUNA_AVX512)
    VF pairs[8], quads[4];
    for (int i = 0; i < 8; ++i) {
        const VF a = sums[2 * i], b = sums[2 * i + 1];
        pairs[i] = v_add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
        quads[i] = v_add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    const auto fold = [](VF a, VF b) __attribute__((always_inline)) {
        return v_add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    alignas(64) float all[16];
    _mm512_store_ps(all, fold(fold(quads[0], quads[1]), fold(quads[2], quads[3])));
    for (int r = 0; r < heads; ++r) std::memcpy(out + r * out_stride, all + 4 * r, 16);
#else
    for (int r = 0; r < heads; ++r) {
        for (int t = 0; t < 4; ++t) out[r * out_stride + t] = v_sum(sums[4 * r + t]);
    }
#endif
}

// out[r][t] = q_r . k_t, for R heads and the tokens of the run; meanwhile the values of these tokens are fetched.
template <class Step, int R>
void score(const Run& run, const uint8_t* q, int64_t q_stride, int64_t K, float* out) {
    const int64_t steps = (K + Step::kElements - 1) / Step::kElements;
    int64_t t = 0;
    for (; t + 4 <= run.count; t += 4) {
        VF sums[16];
        for (int i = 0; i < 16; ++i) sums[i] = v_zero();
        const uint8_t *k = run.keys + t * run.key_stride, *v = run.values + t * run.value_stride;
        for (int64_t line = 0; line < 4 * run.value_stride; line += 64) prefetch_far(v + line);
        for (int64_t s = 0; s < steps; ++s) {
            typename Step::Keys keys[4];
            for (int j = 0; j < 4; ++j) keys[j] = Step::load(k + j * run.key_stride + s * Step::kBytes);
            for (int r = 0; r < R; ++r) {
                for (int j = 0; j < 4; ++j) {
                    sums[4 * r + j] = Step::add(sums[4 * r + j], keys[j], q + r * q_stride + s * Step::kQueryBytes);
                }
            }
        }
        sum_all(sums, R, out + t, kRun);
    }
    for (; t < run.count; ++t) {
        for (int r = 0; r < R; ++r) {
            VF sum = v_zero();
            for (int64_t s = 0; s < steps; ++s) {
                const auto key = Step::load(run.keys + t * run.key_stride + s * Step::kBytes);
                sum = Step::add(sum, key, q + r * q_stride + s * Step::kQueryBytes);
            }
            out[r * kRun + t] = v_sum(sum);
        }
    }
}

// Weights with values -------------------------------------------------------------------------------------------------
//
// acc[r] += p[r][t] v_t over the tokens of a run, R heads at a time; meanwhile the keys at `ahead` are fetched.

// In float32, V vectors of channels at a time.
template <class Decode, int R, int V>
void weigh_channels(const Run& run, int64_t channel, const float* p, float* acc, int64_t width, const uint8_t* ahead) {
    VF sums[R][V];
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) sums[r][v] = v_load(acc + r * width + channel + v * LANES);
    }
    const uint8_t* values = run.values + channel * Decode::kSize;
    for (int64_t t = 0; t < run.count; ++t) {
        VF row[V];
        for (int v = 0; v < V; ++v) row[v] = Decode::load(values + t * run.value_stride + v * LANES * Decode::kSize);
        for (int line = 0; line < V * LANES * Decode::kSize; line += 64) {
            prefetch_far(ahead + channel * Decode::kSize + t * run.key_stride + line);
        }
        for (int r = 0; r < R; ++r) {
            const VF by = v_set(p[r * kRun + t]);
            for (int v = 0; v < V; ++v) sums[r][v] = v_fma(by, row[v], sums[r][v]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) v_store(acc + r * width + channel + v * LANES, sums[r][v]);
    }
}

template <class Decode>
struct FloatValues {
    static constexpr float kGain = Decode::kGain;
    using Weight = float;
    static PUNA_INLINE VF keep(float* p, VF x) {
        v_store(p, x);
        return x;
    }
    static PUNA_INLINE int64_t order(int64_t k) { return k; }
    template <int R>
    static void weigh(const Run& run, const float* p, int64_t K, float* acc, int64_t width, const uint8_t* ahead) {
        constexpr int V = LANES >= 16 ? 4 : 2;
        int64_t channel = 0;
        for (; channel + V * LANES <= K; channel += V * LANES) {
            weigh_channels<Decode, R, V>(run, channel, p, acc, width, ahead);
        }
        for (; channel < K; channel += LANES) weigh_channels<Decode, R, 1>(run, channel, p, acc, width, ahead);
    }
};

#if defined(PUNA_PAIRS)
// Two tokens' values as four vectors of pairs. Joining leaves the channels in another order: order() says where each
// is in the sums.
struct Quad {
    __m512bh part[4];
};

struct Bf16Join {  // 64 channels of 2 bytes
    static constexpr int kSize = 2;
    static PUNA_INLINE Quad join(const uint8_t* a, const uint8_t* b) {
        const __m512i a0 = _mm512_loadu_si512(a), a1 = _mm512_loadu_si512(a + 64);
        const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 64);
        return {__m512bh(_mm512_unpacklo_epi16(a0, b0)), __m512bh(_mm512_unpackhi_epi16(a0, b0)),
                __m512bh(_mm512_unpacklo_epi16(a1, b1)), __m512bh(_mm512_unpackhi_epi16(a1, b1))};
    }
    static PUNA_INLINE int64_t order(int64_t k) {  // parts take 4 of each 8 channels of a half
        return (k & ~int64_t(31)) + ((k & 4) << 2) + ((k >> 3 & 3) << 2) + (k & 3);
    }
};

template <class Dot>
struct CodeJoin {  // 64 channels of one byte
    static constexpr int kSize = 1;
    static PUNA_INLINE Quad join(const uint8_t* a, const uint8_t* b) {
        const __m512i x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
        const Bf16Pair low = Dot::decode(_mm512_unpacklo_epi8(x, y)), high = Dot::decode(_mm512_unpackhi_epi8(x, y));
        return {low.first, low.second, high.first, high.second};
    }
    static PUNA_INLINE int64_t order(int64_t k) {  // parts take 4 of each 16 channels
        return (k & ~int64_t(63)) + ((k >> 2 & 3) << 4) + ((k >> 4 & 3) << 2) + (k & 3);
    }
};

template <class Join>
struct PairValues {
    static constexpr float kGain = 1.0f;
    using Weight = uint16_t;
    static PUNA_INLINE VF keep(uint16_t* p, VF x) {
        v_store_bf16(p, x);
        return v_bf16(p);
    }
    static PUNA_INLINE int64_t order(int64_t k) { return Join::order(k); }
    template <int R>
    static void weigh(const Run& run, const uint16_t* p, int64_t K, float* acc, int64_t width, const uint8_t* ahead) {
        for (int64_t channel = 0; channel < K; channel += 64) {
            VF sums[R][4];
            for (int r = 0; r < R; ++r) {
                for (int v = 0; v < 4; ++v) sums[r][v] = v_load(acc + r * width + channel + v * LANES);
            }
            const int64_t at = channel * Join::kSize;
            for (int64_t t = 0; t < run.count; t += 2) {
                const bool both = t + 1 < run.count;
                const uint8_t* first = run.values + t * run.value_stride + at;
                const Quad pair = Join::join(first, both ? first + run.value_stride : first);
                for (int line = 0; line < 64 * Join::kSize; line += 64) {
                    prefetch_far(ahead + t * run.key_stride + at + line);
                    prefetch_far(ahead + (t + 1) * run.key_stride + at + line);
                }
                for (int r = 0; r < R; ++r) {
                    uint32_t weights;
                    std::memcpy(&weights, p + r * kRun + t, 4);
                    if (!both) weights &= 0xffffu;
                    const __m512bh by = __m512bh(_mm512_set1_epi32(int32_t(weights)));
                    for (int v = 0; v < 4; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], pair.part[v], by);
                }
            }
            for (int r = 0; r < R; ++r) {
                for (int v = 0; v < 4; ++v) v_store(acc + r * width + channel + v * LANES, sums[r][v]);
            }
        }
    }
};
#endif

}  // namespace puna
