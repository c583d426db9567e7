// Products of stored weights with prepared tokens, a block at a time.
//
// A format says how many weights a block holds (kBlock), how many bytes they take (kBytes) and how far the tokens
// advance (kStep bytes), decodes a block into registers (load), and adds its product with one token to an accumulator
// (dot). A decoded block is used for all tokens of a tile (kTile at most), so weights are read and decoded once. The
// tail of a row is a copy padded with zeros. Which formats exist depends on the instruction set; linear.cpp takes the best.
#pragma once

#include "activations.h"
#include "simd.h"

namespace puna {

struct Job {
    const uint8_t* weight;
    int64_t row_bytes;
    const uint8_t* group_scale;  // of blocks or groups along a row; null without
    int64_t group_row_bytes;     // from one row (or block of rows) of those scales to the next
    int64_t group_size;
    bool scale_bf16;             // group scales of Groups::kAny; elsewhere a template's matter
    const float* row_scale;  // (N,), or null
    const uint8_t* x;        // prepared tokens
    int64_t x_stride;        // bytes
    const float* x_scale;    // (M,), or null; for int4 (M, blocks)
    const int32_t* x_sum;    // (M,): sum of int8 codes; null elsewhere
    void* y;
    bool y_bf16;
    int64_t M, N, K;
    int64_t threads;
};

// Where a block of a row lies, and its group scale.
struct Place {
    const uint8_t* weight;
    const uint8_t* scale;
};

// Formats whose scales, if any, are applied after the sum.
struct RowScaled {
    static constexpr bool kTokenScale = false;
    static constexpr int kTile = 4;
    static PUNA_INLINE const uint8_t* scales(const Job&, int64_t) { return nullptr; }
    static PUNA_INLINE const uint8_t* scale_at(const Job&, const uint8_t*, int64_t, bool, float*) { return nullptr; }
};

// Formats that sum floats, whose order matters. kStreams is how many sums a row that is read alone may have: whole
// numbers may have several, floats one; none where a row alone would be slower to multiply than to read, for its chain
// of additions or its loads of x, so that two rows are read side by side.
struct FloatSums {
    using Acc = VF;
    static constexpr int kStreams = 0;
    static PUNA_INLINE Acc zero() { return v_zero(); }
    static PUNA_INLINE Acc add(Acc a, Acc b) { return v_add(a, b); }
};

// float32 products: one vector of weights times one of tokens. Every instruction set has these.
template <class Decode>
struct FloatDot : RowScaled, FloatSums {
    static constexpr int kBlock = LANES, kBytes = LANES * Decode::kSize, kStep = LANES * 4;
    static constexpr float kGain = Decode::kGain;
    using Weights = VF;
    static PUNA_INLINE Weights load(Place p) { return Decode::load(p.weight); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        return v_fma(w, v_load(reinterpret_cast<const float*>(x)), acc);
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return v_sum(acc) * kGain; }
};

struct DecodeBf16 {
    static constexpr int kSize = 2;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_bf16(p); }
};

struct DecodeInt8 {
    static constexpr int kSize = 1;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_int8(p); }
};

struct DecodeFp8 {
    static constexpr int kSize = 1;
    static constexpr float kGain = kFp8Gain;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_fp8_scaled(p); }
};

// The scale of a 128 x 128 block of fp8 weights.
struct BlockScaled {
    static constexpr bool kTokenScale = false;
    static constexpr int kTile = 4;
    static PUNA_INLINE const uint8_t* scales(const Job& job, int64_t row) {
        return job.group_scale + row / 128 * job.group_row_bytes;
    }
    static PUNA_INLINE const uint8_t* scale_at(const Job&, const uint8_t* scales, int64_t element, bool, float*) {
        return scales + element / 128 * 4;
    }
    static PUNA_INLINE float scale(const uint8_t* p) { return bits<float>(*reinterpret_cast<const uint32_t*>(p)); }
};

struct Fp8BlockFloat : BlockScaled, FloatSums {
    static constexpr int kBlock = LANES, kBytes = LANES, kStep = LANES * 4;
    using Weights = VF;
    static PUNA_INLINE Weights load(Place p) { return v_mul(v_fp8_scaled(p.weight), v_set(scale(p.scale))); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        return v_fma(w, v_load(reinterpret_cast<const float*>(x)), acc);
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return v_sum(acc) * kFp8Gain; }
};

// bf16 pairs ----------------------------------------------------------------------------------------------------------

#if defined(PUNA_AVX512_BF16)
#define PUNA_BF16_DOT 1
struct Bf16Dot : RowScaled, FloatSums {
    static constexpr int kTile = 8;
    static constexpr int kStreams = 1;
    static constexpr int kBlock = 32, kBytes = 64, kStep = 64;
    using Weights = __m512bh;
    static PUNA_INLINE Weights load(Place p) { return __m512bh(_mm512_loadu_si512(p.weight)); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        return _mm512_dpbf16_ps(acc, w, __m512bh(_mm512_load_si512(x)));
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return v_sum(acc); }
};
#elif defined(PUNA_NEON_BF16)
#define PUNA_BF16_DOT 1
struct Bf16Dot : RowScaled, FloatSums {
    static constexpr int kStreams = 1;
    static constexpr int kBlock = 8, kBytes = 16, kStep = 16;
    using Weights = bfloat16x8_t;
    static PUNA_INLINE Weights read(const uint8_t* p) { return vreinterpretq_bf16_u8(vld1q_u8(p)); }
    static PUNA_INLINE Weights load(Place p) { return read(p.weight); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        return vbfdotq_f32(acc, w, read(x));
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return v_sum(acc); }
};
#endif

#if defined(PUNA_AVX512_BF16) && defined(PUNA_AVX512_VBMI)
#define PUNA_FP8_DOT 1

// bf16 of the 128 magnitudes of E4M3, split into high and low bytes. All are normal numbers, so that the product
// instruction, which takes subnormals for zero, sees every one.
struct Fp8Tables {
    alignas(64) uint8_t high[128], low[128];
    constexpr Fp8Tables() : high(), low() {
        for (int code = 0; code < 128; ++code) {
            int exponent = code >> 3, fraction = code & 7;
            uint32_t value = 0;
            if (code == 127) {
                value = 0x7fc0;
            } else if (exponent > 0) {
                value = uint32_t((exponent + 120) << 7 | fraction << 4);
            } else if (fraction > 0) {
                int shift = fraction >= 4 ? 1 : fraction >= 2 ? 2 : 3;  // until the leading one leaves the fraction
                value = uint32_t((121 - shift) << 7 | ((fraction << shift) & 7) << 4);
            }
            high[code] = uint8_t(value >> 8);
            low[code] = uint8_t(value & 255);
        }
    }
};
inline constexpr Fp8Tables kFp8Tables;

// 64 codes as two vectors of bf16. Bytes are joined within 16-byte lanes: the first vector holds elements 0-7 of each
// lane and the second 8-15, and fp8_order lays out the tokens alike.
struct Bf16Pair {
    __m512bh first, second;
};
PUNA_INLINE Bf16Pair fp8_to_bf16(__m512i code) {
    const __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Tables.high), code,
                                                  _mm512_load_si512(kFp8Tables.high + 64));
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Tables.low), code,
                                                 _mm512_load_si512(kFp8Tables.low + 64));
    const __m512i sign = _mm512_set1_epi8(char(0x80));
    const __m512i top = _mm512_ternarylogic_epi32(high, code, sign, 0xf8);  // high | (code & sign)
    return {__m512bh(_mm512_unpacklo_epi8(low, top)), __m512bh(_mm512_unpackhi_epi8(low, top))};
}
PUNA_INLINE int64_t fp8_order(int64_t k) {  // where element k of a token goes
    const int64_t in = k & 63;
    return (k & ~int64_t(63)) + ((in & 8) << 2) + ((in >> 4) << 3) + (in & 7);
}

struct Fp8Dot : RowScaled, FloatSums {
    static constexpr int kBlock = 64, kBytes = 64, kStep = 128;
    using Weights = Bf16Pair;
    static PUNA_INLINE Weights decode(__m512i codes) { return fp8_to_bf16(codes); }
    static PUNA_INLINE Weights load(Place p) { return decode(_mm512_loadu_si512(p.weight)); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        // The products take twelve cycles and would hold up the next block's: only the addition waits for the last one.
        const VF part = _mm512_dpbf16_ps(v_zero(), w.first, __m512bh(_mm512_load_si512(x)));
        return v_add(acc, _mm512_dpbf16_ps(part, w.second, __m512bh(_mm512_load_si512(x + 64))));
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return v_sum(acc); }
};

struct Fp8BlockDot : BlockScaled, FloatSums {
    static constexpr int kTile = 8;
    static constexpr int kBlock = 128, kBytes = 128, kStep = 256;
    struct Weights {
        Bf16Pair low, high;
        VF scale;
    };
    static PUNA_INLINE Weights load(Place p) {
        return {Fp8Dot::load(p), Fp8Dot::load({p.weight + 64, nullptr}), v_set(scale(p.scale))};
    }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        const VF part = Fp8Dot::dot(Fp8Dot::dot(v_zero(), w.low, x, 0), w.high, x + 128, 0);
        return v_fma(part, w.scale, acc);
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return v_sum(acc); }
};

// int8 codes are whole numbers of at most 8 bits, which bf16 holds. The tables go by magnitude, which -128 exceeds.
struct Int8Tables {
    alignas(64) uint8_t high[128], low[128];
    constexpr Int8Tables() : high(), low() {
        for (int code = 1; code < 128; ++code) {
            int exponent = 0;
            while (code >> (exponent + 1) != 0) ++exponent;
            const int value = (exponent + 127) << 7 | ((code << (7 - exponent)) & 127);
            high[code] = uint8_t(value >> 8);
            low[code] = uint8_t(value & 255);
        }
    }
};
inline constexpr Int8Tables kInt8Tables;

struct Int8Bf16Dot : Fp8Dot {
    static PUNA_INLINE Weights load(Place p) { return decode(_mm512_loadu_si512(p.weight)); }
    static PUNA_INLINE Weights decode(__m512i code) {
        const __m512i sign = _mm512_set1_epi8(char(0x80));
        const __m512i magnitude = _mm512_abs_epi8(code);
        __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(kInt8Tables.high), magnitude,
                                                _mm512_load_si512(kInt8Tables.high + 64));
        const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(kInt8Tables.low), magnitude,
                                                     _mm512_load_si512(kInt8Tables.low + 64));
        high = _mm512_mask_mov_epi8(high, _mm512_cmpeq_epi8_mask(code, sign), _mm512_set1_epi8(0x43));
        const __m512i top = _mm512_ternarylogic_epi32(high, code, sign, 0xf8);
        return {__m512bh(_mm512_unpacklo_epi8(low, top)), __m512bh(_mm512_unpackhi_epi8(low, top))};
    }
};
#endif

// int8 quadruples -----------------------------------------------------------------------------------------------------

#if defined(PUNA_AVX512)
// The instruction wants unsigned times signed: weights are moved up by 128, which 128 times the token's sum undoes.
struct Int8Dot : RowScaled {
    static constexpr int kBlock = 64, kBytes = 64, kStep = 64;
    static constexpr int kStreams = 4;
    using Acc = __m512i;
    using Weights = __m512i;
    static PUNA_INLINE Acc zero() { return _mm512_setzero_si512(); }
    static PUNA_INLINE Acc add(Acc a, Acc b) { return _mm512_add_epi32(a, b); }
    static PUNA_INLINE Weights load(Place p) {
        return _mm512_xor_si512(_mm512_loadu_si512(p.weight), _mm512_set1_epi8(char(0x80)));
    }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        return _mm512_dpbusd_epi32(acc, w, _mm512_load_si512(x));
    }
    static PUNA_INLINE float sum(Acc acc, int32_t x_sum) {
        return float(int32_t(uint32_t(_mm512_reduce_add_epi32(acc)) - 128u * uint32_t(x_sum)));
    }
};
#elif defined(PUNA_AVX2)
// Unsigned times signed in pairs: |w| times x with w's sign. 2 * 128 * 127 fits the 16-bit sums.
struct Int8Dot : RowScaled {
    static constexpr int kBlock = 32, kBytes = 32, kStep = 32;
    static constexpr int kStreams = 4;
    using Acc = __m256i;
    using Weights = __m256i;
    static PUNA_INLINE Acc zero() { return _mm256_setzero_si256(); }
    static PUNA_INLINE Acc add(Acc a, Acc b) { return _mm256_add_epi32(a, b); }
    static PUNA_INLINE Weights load(Place p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.weight)); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        const __m256i token = _mm256_load_si256(reinterpret_cast<const __m256i*>(x));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(token, w));
        return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) {
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256(acc, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        return float(_mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1))));
    }
};
#elif defined(PUNA_NEON)
PUNA_INLINE int32x4_t dot_int8(int32x4_t acc, int8x16_t a, int8x16_t b) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, a, b);
#else
    acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vpadalq_s16(acc, vmull_high_s8(a, b));
#endif
}
struct Int8Dot : RowScaled {
    static constexpr int kBlock = 16, kBytes = 16, kStep = 16;
    static constexpr int kStreams = 4;
    using Acc = int32x4_t;
    using Weights = int8x16_t;
    static PUNA_INLINE Acc zero() { return vdupq_n_s32(0); }
    static PUNA_INLINE Acc add(Acc a, Acc b) { return vaddq_s32(a, b); }
    static PUNA_INLINE Weights load(Place p) { return vld1q_s8(reinterpret_cast<const int8_t*>(p.weight)); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        return dot_int8(acc, w, vld1q_s8(reinterpret_cast<const int8_t*>(x)));
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return float(vaddvq_s32(acc)); }
};
#else
struct Int8Dot : RowScaled {
    static constexpr int kBlock = 64, kBytes = 64, kStep = 64;
    static constexpr int kStreams = 4;
    using Acc = int32_t;
    using Weights = const int8_t*;
    static PUNA_INLINE Acc zero() { return 0; }
    static PUNA_INLINE Acc add(Acc a, Acc b) { return a + b; }
    static PUNA_INLINE Weights load(Place p) { return reinterpret_cast<const int8_t*>(p.weight); }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float) {
        const int8_t* token = reinterpret_cast<const int8_t*>(x);
        int32_t sum = 0;
        for (int i = 0; i < kBlock; ++i) sum += int16_t(w[i]) * int16_t(token[i]);
        return acc + sum;
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return float(acc); }
};
#endif

}  // namespace puna
