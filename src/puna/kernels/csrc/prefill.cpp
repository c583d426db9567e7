// What surrounds torch's matrix product when there are many tokens: tiles of weights widened, tokens rounded to codes,
// and sums multiplied by the scales.
#include "activations.h"
#include "dots.h"
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

// `count` E4M3 codes as bf16, which holds them exactly; returns how many it has done.
PUNA_INLINE int64_t widen_codes(const uint8_t* p, uint16_t* out, int64_t count) {
    int64_t k = 0;
#if defined(PUNA_FP8_DOT)
    // fp8_to_bf16 gives bytes 0-7 of each lane and then bytes 8-15: this order makes both halves follow each other.
    alignas(64) static constexpr struct Order {
        uint8_t at[64];
        constexpr Order() : at() {
            for (int lane = 0; lane < 4; ++lane) {
                for (int i = 0; i < 8; ++i) {
                    at[16 * lane + i] = uint8_t(8 * lane + i);
                    at[16 * lane + 8 + i] = uint8_t(32 + 8 * lane + i);
                }
            }
        }
    } kOrder;
    const __m512i order = _mm512_load_si512(kOrder.at);
    for (; k + 64 <= count; k += 64) {
        const Bf16Pair pair = fp8_to_bf16(_mm512_permutexvar_epi8(order, _mm512_loadu_si512(p + k)));
        _mm512_storeu_si512(out + k, __m512i(pair.first));
        _mm512_storeu_si512(out + k + 32, __m512i(pair.second));
    }
#endif
    return k;
}

// 32 weights of one group of 4 bits as bf16: what its sixteen codes stand for is a table of 32 bytes.
#if defined(PUNA_AVX512_BF16)
#define PUNA_INT4_TABLE 1
PUNA_INLINE void widen_nibbles(const uint8_t* p, __m512i table, uint16_t* out) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m512i low = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
    const __m512i high = _mm512_and_si512(_mm512_slli_epi32(bytes, 12), _mm512_set1_epi32(0xf0000));
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(_mm512_or_si512(low, high), table));
}
PUNA_INLINE __m512i nibble_table(float scale) {
    const __m512 codes = _mm512_set_ps(7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8);
    return _mm512_castsi256_si512(__m256i(_mm512_cvtneps_pbh(_mm512_mul_ps(codes, _mm512_set1_ps(scale)))));
}
#endif

int64_t rows_a_piece(int64_t K) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(K, 1)); }

// `count` sums from `at` on, the missing ones as zero.
PUNA_INLINE VF load_sums(const void* sums, int kind, int64_t at, int64_t count) {
    if (count == LANES && kind == 1) return v_load(static_cast<const float*>(sums) + at);
    if (count == LANES && kind == 2) return v_bf16(static_cast<const uint16_t*>(sums) + at);
    alignas(64) float copy[LANES] = {};
    for (int64_t i = 0; i < count; ++i) {
        copy[i] = kind == 0   ? float(static_cast<const int32_t*>(sums)[at + i])
                  : kind == 1 ? static_cast<const float*>(sums)[at + i]
                              : bf16_to_float(static_cast<const uint16_t*>(sums)[at + i]);
    }
    return v_load(copy);
}

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
                const int64_t wanted = std::min(width, K - start);
                int64_t done = 0;
                if (out_bf16 && scale == nullptr) done = widen_codes(row, static_cast<uint16_t*>(out) + n * K, wanted);
                fill(out, n * K + start + done, out_bf16 != 0, wanted - done, [&](int64_t k, int64_t count) {
                    const VF code = load_bytes(row + done + k, count, [](const uint8_t* p) { return v_fp8_scaled(p); });
                    return v_mul(by, v_mul(gain, code));
                });
            }
        }
    });
}

// K is a multiple of `group`, and `group` of 32.
void puna_widen_int4(const uint8_t* packed, const void* scale, int scale_bf16, int64_t group, void* out, int out_bf16,
                     int64_t N, int64_t K, int64_t threads) {
    const int64_t groups = K / group;
    share(threads, N, rows_a_piece(K), [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
            const uint8_t* row = packed + n * (K / 2);
            for (int64_t g = 0; g < groups; ++g) {
                const int64_t at = n * groups + g;
                const float scaled = scale_bf16 ? bf16_to_float(load16(static_cast<const uint8_t*>(scale) + 2 * at))
                                                : static_cast<const float*>(scale)[at];
#if defined(PUNA_INT4_TABLE)
                if (out_bf16) {
                    const __m512i table = nibble_table(scaled);
                    for (int64_t k = g * group; k < (g + 1) * group; k += 32) {
                        widen_nibbles(row + k / 2, table, static_cast<uint16_t*>(out) + n * K + k);
                    }
                    continue;
                }
#endif
                const VF by = v_set(scaled);
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
        for (int64_t m = first; m < last; ++m) {
            const VF by = v_set(x_scale == nullptr ? 1.0f : x_scale[m]);
            fill(y, m * N + first_row, y_bf16 != 0, rows, [&](int64_t n, int64_t count) {
                const VF sum = v_mul(load_sums(sums, kind, m * rows + n, count), by);
                if (row_scale == nullptr) return sum;
                return v_mul(sum, count == LANES ? v_load(row_scale + n) : load_sums(row_scale, 1, n, count));
            });
        }
    });
}

}  // extern "C"
