// Products of int4 weights with tokens rounded to int8.
//
// 64 bytes hold 128 weights: element 2i in the low nibble of byte i, element 2i + 1 in the high one, each moved up by 8.
// Four bytes against four codes give the sum over eight elements, so a group of 32 is four 32-bit sums, which are turned
// to float and multiplied by the group's scale and by the scale of the token's 128 inputs.
#pragma once

#include "dots.h"

namespace puna {

template <bool Bf16>
PUNA_INLINE float read_scale(const uint8_t* p, int64_t index) {
    if constexpr (Bf16) {
        return bf16_to_float(load16(p + 2 * index));
    } else {
        float f;
        std::memcpy(&f, p + 4 * index, 4);
        return f;
    }
}

// How the four 32-element parts of a block find their scales.
enum class Groups { k32, kWhole, kAny };  // a scale each; one for the block (multiples of 128); by division, as float

template <Groups G, bool Bf16>
struct GroupScaled {
    static constexpr bool kTokenScale = true;
    static constexpr int kTile = 4;
    static constexpr int kSize = Bf16 ? 2 : 4;
    static PUNA_INLINE const uint8_t* scales(const Job& job, int64_t row) {
        return job.group_scale + row * job.group_row_bytes;
    }
    // `kept` is room for four floats: where scales must be gathered, or would be read past the end of their row.
    static PUNA_INLINE const uint8_t* scale_at(const Job& job, const uint8_t* scales, int64_t element, bool tail,
                                               float* kept) {
        if constexpr (G == Groups::kWhole) return scales + element / job.group_size * kSize;
        if (G == Groups::k32 && !tail) return scales + element / 32 * kSize;
        for (int part = 0; part < 4; ++part) {
            const int64_t at = element + 32 * part, group = at / job.group_size;
            const bool half = G == Groups::kAny ? job.scale_bf16 : Bf16;
            const float scale = at >= job.K ? 0.0f : half ? read_scale<true>(scales, group) : read_scale<false>(scales, group);
            if (Bf16) {
                const uint16_t h = float_to_bf16(scale);
                std::memcpy(reinterpret_cast<uint8_t*>(kept) + 2 * part, &h, 2);
            } else {
                kept[part] = scale;
            }
        }
        return reinterpret_cast<const uint8_t*>(kept);
    }
};

#if defined(PUNA_AVX512)
constexpr int kParts = 4;  // parts of 32 elements that one vector of sums covers
template <Groups G, bool Bf16>
PUNA_INLINE VF spread_scales(const uint8_t* p) {
    if constexpr (G == Groups::kWhole) {
        return v_set(read_scale<Bf16>(p, 0));
    } else if constexpr (Bf16) {
        uint64_t four;
        std::memcpy(&four, p, 8);
        const __m512i order = _mm512_set_epi32(
            0x07068080, 0x07068080, 0x07068080, 0x07068080, 0x05048080, 0x05048080, 0x05048080, 0x05048080,
            0x03028080, 0x03028080, 0x03028080, 0x03028080, 0x01008080, 0x01008080, 0x01008080, 0x01008080);
        return _mm512_castsi512_ps(_mm512_shuffle_epi8(_mm512_set1_epi64(int64_t(four)), order));
    } else {
        const __m512i order = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
        const __m128 four = _mm_loadu_ps(reinterpret_cast<const float*>(p));
        return _mm512_permutexvar_ps(order, _mm512_castps128_ps512(four));
    }
}
struct Nibbles {
    __m512i low, high;
};
PUNA_INLINE Nibbles split_nibbles(const uint8_t* p) {
    const __m512i bytes = _mm512_loadu_si512(p);
    const __m512i mask = _mm512_set1_epi8(15);
    return {_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask)};
}
PUNA_INLINE VF nibble_sums(const Nibbles& w, const Int4Block& x, int part) {
    __m512i sums = _mm512_load_si512(x.offset + 4 * part);
    sums = _mm512_dpbusd_epi32(sums, w.low, _mm512_load_si512(x.even + 16 * part));
    sums = _mm512_dpbusd_epi32(sums, w.high, _mm512_load_si512(x.odd + 16 * part));
    return _mm512_cvtepi32_ps(sums);
}
#elif defined(PUNA_AVX2)
constexpr int kParts = 2;
template <Groups G, bool Bf16>
PUNA_INLINE VF spread_scales(const uint8_t* p) {
    if constexpr (G == Groups::kWhole) return v_set(read_scale<Bf16>(p, 0));
    const __m128 first = _mm_set1_ps(read_scale<Bf16>(p, 0)), second = _mm_set1_ps(read_scale<Bf16>(p, 1));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(first), second, 1);
}
struct Nibbles {
    __m256i low, high;
};
PUNA_INLINE Nibbles split_nibbles(const uint8_t* p) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask)};
}
PUNA_INLINE VF nibble_sums(const Nibbles& w, const Int4Block& x, int part) {
    const __m256i even = _mm256_load_si256(reinterpret_cast<const __m256i*>(x.even + 16 * part));
    const __m256i odd = _mm256_load_si256(reinterpret_cast<const __m256i*>(x.odd + 16 * part));
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w.low, even), _mm256_maddubs_epi16(w.high, odd));
    const __m256i offset = _mm256_load_si256(reinterpret_cast<const __m256i*>(x.offset + 4 * part));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(offset, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
#elif defined(PUNA_NEON)
constexpr int kParts = 1;
template <Groups G, bool Bf16>
PUNA_INLINE VF spread_scales(const uint8_t* p) {
    return v_set(read_scale<Bf16>(p, 0));
}
struct Nibbles {
    int8x16_t low, high;
};
PUNA_INLINE Nibbles split_nibbles(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    return {vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4))};
}
PUNA_INLINE VF nibble_sums(const Nibbles& w, const Int4Block& x, int part) {
    int32x4_t sums = vld1q_s32(x.offset + 4 * part);
    sums = dot_int8(sums, w.low, vld1q_s8(x.even + 16 * part));
    return vcvtq_f32_s32(dot_int8(sums, w.high, vld1q_s8(x.odd + 16 * part)));
}
#else
constexpr int kParts = 2;
template <Groups G, bool Bf16>
PUNA_INLINE VF spread_scales(const uint8_t* p) {
    const float first = read_scale<Bf16>(p, 0), second = G == Groups::kWhole ? first : read_scale<Bf16>(p, 1);
    return VF{first, first, first, first, second, second, second, second};
}
struct Nibbles {
    const uint8_t* bytes;
};
PUNA_INLINE Nibbles split_nibbles(const uint8_t* p) { return {p}; }
PUNA_INLINE VF nibble_sums(const Nibbles& w, const Int4Block& x, int part) {
    VI sums;
    std::memcpy(&sums, x.offset + 4 * part, sizeof(sums));
    const int8_t *even = x.even + 16 * part, *odd = x.odd + 16 * part;
    int16_t products[32];
    for (int i = 0; i < 32; ++i) products[i] = int16_t((w.bytes[i] & 15) * even[i] + (w.bytes[i] >> 4) * odd[i]);
    for (int i = 0; i < 8; ++i) {
        sums[i] += products[4 * i] + products[4 * i + 1] + products[4 * i + 2] + products[4 * i + 3];
    }
    return __builtin_convertvector(sums, VF);
}
#endif

template <Groups G, bool Bf16>
struct Int4Dot : GroupScaled<G, Bf16>, FloatSums {
    static constexpr int kBlock = 128, kBytes = 64, kStep = sizeof(Int4Block);
    static constexpr int kVectors = 4 / kParts;
    struct Weights {
        Nibbles nibbles[kVectors];
        VF scale[kVectors];
    };
    static PUNA_INLINE Weights load(Place p) {
        Weights w;
        for (int v = 0; v < kVectors; ++v) {
            w.nibbles[v] = split_nibbles(p.weight + 16 * kParts * v);
            const int step = G == Groups::kWhole ? 0 : v * kParts * (Bf16 ? 2 : 4);
            w.scale[v] = spread_scales<G, Bf16>(p.scale + step);
        }
        return w;
    }
    static PUNA_INLINE Acc dot(Acc acc, const Weights& w, const uint8_t* x, float x_scale) {
        const Int4Block& block = *reinterpret_cast<const Int4Block*>(x);
        for (int v = 0; v < kVectors; ++v) {
            const VF sums = nibble_sums(w.nibbles[v], block, v * kParts);
            acc = v_fma(sums, v_mul(w.scale[v], v_set(x_scale)), acc);
        }
        return acc;
    }
    static PUNA_INLINE float sum(Acc acc, int32_t) { return v_sum(acc); }
};

}  // namespace puna
