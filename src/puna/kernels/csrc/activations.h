// The tokens' side of a product: rows of x widened, rounded and laid out as the dot products of dots.h read them.
//
// Every row is padded with zeros to a multiple of kPad, so that a tail of weights meets zeros. Quantisation is dynamic,
// a scale for each token (or block of 128 inputs of it): scale = absmax / largest code, code = round(x / scale), ties to
// even. A NaN or an infinity in a row makes its scale NaN or infinite, and so all outputs of that token.
#pragma once

#include <algorithm>

#include "parallel.h"
#include "simd.h"

namespace puna {

constexpr int64_t kPad = 128;

PUNA_INLINE int64_t padded(int64_t count) { return (count + kPad - 1) / kPad * kPad; }

struct Source {  // x (M, K): float32, or bfloat16
    const void* data;
    bool bf16;
    int64_t M, K;
};

inline void widen_row(const Source& x, int64_t m, float* out) {
    if (x.bf16) {
        const uint8_t* row = static_cast<const uint8_t*>(x.data) + 2 * m * x.K;
        for (int64_t k = 0; k < x.K; ++k) out[k] = bf16_to_float(load16(row + 2 * k));
    } else {
        std::memcpy(out, static_cast<const uint8_t*>(x.data) + 4 * m * x.K, size_t(4 * x.K));
    }
    std::memset(out + x.K, 0, size_t(4 * (padded(x.K) - x.K)));
}

// The largest magnitude. Compared as integers, whose order is that of the floats they stand for, with NaN on top.
inline float absmax(const float* row, int64_t count) {
    int32_t largest = 0;
    for (int64_t k = 0; k < count; ++k) {
        const int32_t magnitude = bits<int32_t>(row[k]) & 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
    }
    return bits<float>(largest);
}

// Codes -127 .. 127 of `count` floats; returns the scale, which is zero for a row of zeros.
inline float quantize_int8(const float* row, int64_t count, int8_t* out) {
    const float scale = absmax(row, count) / 127.0f;
    if (scale == 0.0f) {
        std::memset(out, 0, size_t(count));
        return 0.0f;
    }
    for (int64_t k = 0; k < count; ++k) {
        // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
        out[k] = int8_t(bits<int32_t>(row[k] / scale + 12582912.0f) - 0x4b400000);
    }
    return scale;
}

// Rounds `count` floats to E4M3 values in place; returns the scale (absmax clipped to [1e-12, cap]) / 448.
inline float quantize_fp8(float* row, int64_t count, float cap) {
    float largest = absmax(row, count);
    largest = largest > cap ? cap : largest;
    largest = largest < 1e-12f ? 1e-12f : largest;
    const float scale = largest / 448.0f;
    for (int64_t k = 0; k < count; ++k) {
        float v = row[k] / scale;
        v = v > 448.0f ? 448.0f : v;
        v = v < -448.0f ? -448.0f : v;
        // Normal codes keep three bits after the leading one; below 2^-6 the grid is even, in steps of 2^-9.
        const uint32_t u = bits<uint32_t>(v);
        const float normal = bits<float>((u + 0x7ffffu + ((u >> 20) & 1u)) & 0xfff00000u);
        const float even = (v + 24576.0f) - 24576.0f;
        row[k] = (u & 0x7fffffffu) < 0x3c800000u ? even : normal;
    }
    return scale;
}

// What a row of int4 weights meets: for each 128 inputs the codes of even and of odd elements, as the nibbles lie, and
// for each 8 inputs -8 times their sum, which takes away the offset of the stored nibbles.
struct Int4Block {
    int8_t even[64], odd[64];
    int32_t offset[16];
};

// Writes padded(K) / 128 blocks with a scale each; `codes` is scratch for 128.
inline void quantize_blocks(const float* row, int64_t K, Int4Block* out, float* scale) {
    alignas(64) int8_t codes[128];
    for (int64_t b = 0; b < padded(K) / 128; ++b) {
        scale[b] = quantize_int8(row + 128 * b, 128, codes);
        for (int i = 0; i < 64; ++i) {
            out[b].even[i] = codes[2 * i];
            out[b].odd[i] = codes[2 * i + 1];
        }
        for (int i = 0; i < 16; ++i) {
            int32_t sum = 0;
            for (int j = 0; j < 8; ++j) sum += codes[8 * i + j];
            out[b].offset[i] = -8 * sum;
        }
    }
}

}  // namespace puna
