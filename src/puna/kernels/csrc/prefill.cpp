// What surrounds torch's matrix product when there are many tokens: tiles of weights widened, tokens rounded to codes,
// and sums multiplied by the scales.
#include "activations.h"
#include "simd.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace puna {
namespace {

PUNA_INLINE void store(void* out, int64_t at, bool bf16, VF value) {
    if (bf16) {
        v_store_bf16(static_cast<uint16_t*>(out) + at, value);
    } else {
        v_store(static_cast<float*>(out) + at, value);
    }
}

// out[at + k] = load(k) for k in [0, count); `load` gives LANES values, `one` a copy of the tail to load from.
template <class Load>
PUNA_INLINE void fill(void* out, int64_t at, bool bf16, int64_t count, const Load& load) {
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES) store(out, at + k, bf16, load(k, LANES));
    if (k < count) {
        alignas(64) float tail[LANES];
        v_store(tail, load(k, count - k));
        for (int64_t i = 0; k + i < count; ++i) {
            if (bf16) {
                static_cast<uint16_t*>(out)[at + k + i] = float_to_bf16(tail[i]);
            } else {
                static_cast<float*>(out)[at + k + i] = tail[i];
            }
        }
    }
}

// Reads `count` one-byte weights at p, the missing ones as zero.
template <class Decode>
PUNA_INLINE VF load_bytes(const uint8_t* p, int64_t count, const Decode& decode) {
    if (count == LANES) return decode(p);
    alignas(64) uint8_t copy[LANES] = {};
    std::memcpy(copy, p, size_t(count));
    return decode(copy);
}

// Sixteen bytes of nibbles as 32 codes -8 .. 7 in order, low nibbles first.
PUNA_INLINE void unpack_nibbles(const uint8_t* p, int8_t* codes) {
#if defined(__SSE2__)
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), mask = _mm_set1_epi8(15);
    const __m128i low = _mm_and_si128(bytes, mask), high = _mm_and_si128(_mm_srli_epi16(bytes, 4), mask);
    const __m128i eight = _mm_set1_epi8(8);
    auto* out = reinterpret_cast<__m128i*>(codes);
    _mm_storeu_si128(out, _mm_sub_epi8(_mm_unpacklo_epi8(low, high), eight));
    _mm_storeu_si128(out + 1, _mm_sub_epi8(_mm_unpackhi_epi8(low, high), eight));
#elif defined(PUNA_NEON)
    const uint8x16_t bytes = vld1q_u8(p), low = vandq_u8(bytes, vdupq_n_u8(15)), high = vshrq_n_u8(bytes, 4);
    const int8x16_t eight = vdupq_n_s8(8);
    vst1q_s8(codes, vsubq_s8(vreinterpretq_s8_u8(vzip1q_u8(low, high)), eight));
    vst1q_s8(codes + 16, vsubq_s8(vreinterpretq_s8_u8(vzip2q_u8(low, high)), eight));
#else
    for (int i = 0; i < 16; ++i) {
        codes[2 * i] = int8_t((p[i] & 15) - 8);
        codes[2 * i + 1] = int8_t((p[i] >> 4) - 8);
    }
#endif
}

int64_t rows_a_piece(int64_t K) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(K, 1)); }

thread_local Scratch row_scratch;

}  // namespace
}  // namespace puna

using namespace puna;

extern "C" {

// out (N, K) = weight * scale by row; without a scale the codes themselves.
void puna_widen_int8(const uint8_t* weight, const float* scale, void* out, int out_bf16, int64_t N, int64_t K,
                     int64_t threads) {
    share(threads, N, rows_a_piece(K), [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
            const uint8_t* row = weight + n * K;
            const VF by = v_set(scale == nullptr ? 1.0f : scale[n]);
            fill(out, n * K, out_bf16 != 0, K, [&](int64_t k, int64_t count) {
                return v_mul(by, load_bytes(row + k, count, [](const uint8_t* p) { return v_int8(p); }));
            });
        }
    });
}

// `blocked`: scale is (ceil(N/128), ceil(K/128)); else (N,), or null for the codes themselves.
void puna_widen_fp8(const uint8_t* weight, const float* scale, int blocked, void* out, int out_bf16, int64_t N,
                    int64_t K, int64_t threads) {
    const int64_t columns = (K + 127) / 128, width = blocked ? 128 : K;
    share(threads, N, rows_a_piece(K), [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
            for (int64_t start = 0; start < K; start += width) {
                const uint8_t* row = weight + n * K + start;
                const float scaled = scale == nullptr ? 1.0f : blocked ? scale[n / 128 * columns + start / 128] : scale[n];
                const VF gain = v_set(kFp8Gain), by = v_set(scaled);
                fill(out, n * K + start, out_bf16 != 0, std::min(width, K - start), [&](int64_t k, int64_t count) {
                    const VF code = load_bytes(row + k, count, [](const uint8_t* p) { return v_fp8_scaled(p); });
                    return v_mul(by, v_mul(gain, code));
                });
            }
        }
    });
}

// K is a multiple of `group`, and `group` of 32.
void puna_widen_int4(const uint8_t* packed, const void* scale, int scale_bf16, int64_t group, void* out, int out_bf16,
                     int64_t N, int64_t K, int64_t threads) {
    share(threads, N, rows_a_piece(K), [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
            const uint8_t* row = packed + n * (K / 2);
            for (int64_t g = 0; g < K / group; ++g) {
                const int64_t at = n * (K / group) + g;
                const VF by = v_set(scale_bf16 ? bf16_to_float(load16(static_cast<const uint8_t*>(scale) + 2 * at))
                                               : static_cast<const float*>(scale)[at]);
                for (int64_t k = g * group; k < (g + 1) * group; k += 32) {
                    alignas(64) int8_t codes[32];
                    unpack_nibbles(row + k / 2, codes);
                    for (int i = 0; i < 32; i += LANES) {
                        store(out, n * K + k + i, out_bf16 != 0, v_mul(by, v_int8(codes + i)));
                    }
                }
            }
        }
    });
}

// Int8 codes (M, K) and a scale (M,) of each token.
void puna_quantize_int8(const void* x, int x_bf16, int8_t* codes, float* scale, int64_t M, int64_t K, int64_t threads) {
    const Source source{x, x_bf16 != 0, M, K};
    share(threads, M, 1, [&](int64_t first, int64_t last) {
        float* row = row_scratch.take<float>(padded(K));
        for (int64_t m = first; m < last; ++m) {
            widen_row(source, m, row);
            scale[m] = quantize_int8(row, K, codes + m * K);
        }
    });
}

// E4M3 values (M, K), written as bfloat16 or float32, which hold them exactly, and a scale (M,) of each token.
void puna_quantize_fp8(const void* x, int x_bf16, float cap, void* values, int out_bf16, float* scale, int64_t M,
                       int64_t K, int64_t threads) {
    const Source source{x, x_bf16 != 0, M, K};
    share(threads, M, 1, [&](int64_t first, int64_t last) {
        float* row = row_scratch.take<float>(padded(K));
        for (int64_t m = first; m < last; ++m) {
            widen_row(source, m, row);
            scale[m] = quantize_fp8(row, K, cap);
            if (out_bf16) {
                uint16_t* out = static_cast<uint16_t*>(values) + m * K;
                for (int64_t k = 0; k < K; ++k) out[k] = float_to_bf16(row[k]);
            } else {
                std::memcpy(static_cast<float*>(values) + m * K, row, size_t(4 * K));
            }
        }
    });
}

// y[m, first_row + n] = sums[m, n] * x_scale[m] * row_scale[n], for a tile of `rows` columns of y (M, N).
// `kind` of the sums: 0 int32, 1 float32, 2 bfloat16.
void puna_rescale(const void* sums, int kind, const float* x_scale, const float* row_scale, void* y, int y_bf16,
                  int64_t M, int64_t rows, int64_t N, int64_t first_row, int64_t threads) {
    share(threads, M, std::max<int64_t>(1, 16384 / std::max<int64_t>(rows, 1)), [&](int64_t first, int64_t last) {
        float* line = row_scratch.take<float>(rows);
        for (int64_t m = first; m < last; ++m) {
            const float by = x_scale == nullptr ? 1.0f : x_scale[m];
            for (int64_t n = 0; n < rows; ++n) {
                float sum;
                if (kind == 0) {
                    sum = float(static_cast<const int32_t*>(sums)[m * rows + n]);
                } else if (kind == 1) {
                    sum = static_cast<const float*>(sums)[m * rows + n];
                } else {
                    sum = bf16_to_float(static_cast<const uint16_t*>(sums)[m * rows + n]);
                }
                line[n] = sum * (row_scale == nullptr ? 1.0f : row_scale[n]) * by;
            }
            fill(y, m * N + first_row, y_bf16 != 0, rows, [&](int64_t k, int64_t count) {
                if (count == LANES) return v_load(line + k);
                alignas(64) float copy[LANES] = {};
                std::memcpy(copy, line + k, size_t(4 * count));
                return v_load(copy);
            });
        }
    });
}

}  // extern "C"
