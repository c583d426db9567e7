// One vocabulary of float vectors over AVX-512, AVX2, NEON and plain C++ (GCC's vector types).
//
// Only what the kernels need: loads that widen each stored format to float, multiply-add, a sum over lanes, an
// exponential, and stores that round to nearest even. Products in a stored format's own width (bf16 pairs, int8
// quadruples) stand in dots.h. The instruction set is what the compiler was told (-march=...): build.py chooses.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(PUNA_GENERIC)
#define PUNA_INSTRUCTION_SET "generic"
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__)
#define PUNA_AVX512 1
#if defined(__AVX512BF16__)
#define PUNA_AVX512_BF16 1
#endif
#if defined(__AVX512VBMI__)
#define PUNA_AVX512_VBMI 1
#endif
#if defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#define PUNA_INSTRUCTION_SET "avx512 (vnni, bf16, vbmi)"
#elif defined(__AVX512BF16__)
#define PUNA_INSTRUCTION_SET "avx512 (vnni, bf16)"
#else
#define PUNA_INSTRUCTION_SET "avx512 (vnni)"
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define PUNA_AVX2 1
#define PUNA_INSTRUCTION_SET "avx2"
#elif defined(__aarch64__) && defined(__ARM_NEON)
#define PUNA_NEON 1
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define PUNA_NEON_BF16 1
#endif
#if defined(__ARM_FEATURE_DOTPROD) && defined(PUNA_NEON_BF16)
#define PUNA_INSTRUCTION_SET "neon (dotprod, bf16)"
#elif defined(__ARM_FEATURE_DOTPROD)
#define PUNA_INSTRUCTION_SET "neon (dotprod)"
#else
#define PUNA_INSTRUCTION_SET "neon"
#endif
#else
#define PUNA_INSTRUCTION_SET "generic"
#endif

#if defined(PUNA_AVX512) || defined(PUNA_AVX2)
#include <immintrin.h>
#elif defined(PUNA_NEON)
#include <arm_neon.h>
#endif

#define PUNA_INLINE inline __attribute__((always_inline))

namespace puna {

// Scalars -------------------------------------------------------------------------------------------------------------

template <class To, class From>
PUNA_INLINE To bits(const From& from) {
    static_assert(sizeof(To) == sizeof(From), "a change of view, not of size");
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

PUNA_INLINE float bf16_to_float(uint16_t h) { return bits<float>(uint32_t(h) << 16); }

PUNA_INLINE uint16_t float_to_bf16(float f) {  // to nearest, ties to even; a NaN stays one
    const uint32_t u = bits<uint32_t>(f);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return uint16_t((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}

PUNA_INLINE uint16_t load16(const void* p) {
    uint16_t h;
    std::memcpy(&h, p, 2);
    return h;
}

PUNA_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
PUNA_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }  // into the second cache

// e^r - 1 series to the seventh power: with |r| <= ln(2)/2 its error is below half a unit of float32.
constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2High = 0.693145751953125f;
constexpr float kLn2Low = 1.42860677e-6f;
constexpr float kExpLow = -87.0f, kExpHigh = 88.0f;

// Vectors of float ----------------------------------------------------------------------------------------------------

#if defined(PUNA_AVX512)

using VF = __m512;
constexpr int LANES = 16;
PUNA_INLINE VF v_zero() { return _mm512_setzero_ps(); }
PUNA_INLINE VF v_set(float f) { return _mm512_set1_ps(f); }
PUNA_INLINE VF v_load(const float* p) { return _mm512_loadu_ps(p); }
PUNA_INLINE void v_store(float* p, VF a) { _mm512_storeu_ps(p, a); }
PUNA_INLINE VF v_add(VF a, VF b) { return _mm512_add_ps(a, b); }
PUNA_INLINE VF v_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
PUNA_INLINE VF v_div(VF a, VF b) { return _mm512_div_ps(a, b); }
PUNA_INLINE VF v_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
PUNA_INLINE VF v_max(VF a, VF b) { return _mm512_max_ps(a, b); }  // b where either is NaN
PUNA_INLINE VF v_min(VF a, VF b) { return _mm512_min_ps(a, b); }
PUNA_INLINE float v_sum(VF a) { return _mm512_reduce_add_ps(a); }
PUNA_INLINE float v_largest(VF a) { return _mm512_reduce_max_ps(a); }
PUNA_INLINE VF v_round(VF a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PUNA_INLINE VF v_ldexp(VF a, VF n) { return _mm512_scalef_ps(a, n); }
PUNA_INLINE VF v_bf16(const void* p) {
    const __m256i h = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
PUNA_INLINE VF v_f16(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
PUNA_INLINE VF v_int8(const void* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
#if defined(PUNA_AVX512_BF16)
PUNA_INLINE void v_store_bf16(void* p, VF a) {  // this instruction takes subnormals (below 1e-38) for zero
    _mm256_storeu_si256(static_cast<__m256i*>(p), __m256i(_mm512_cvtneps_pbh(a)));
}
#else
PUNA_INLINE void v_store_bf16(void* p, VF a) {  // float_to_bf16 in 32-bit lanes
    const __m512i u = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(r));
}
#endif

#elif defined(PUNA_AVX2)

using VF = __m256;
constexpr int LANES = 8;
PUNA_INLINE VF v_zero() { return _mm256_setzero_ps(); }
PUNA_INLINE VF v_set(float f) { return _mm256_set1_ps(f); }
PUNA_INLINE VF v_load(const float* p) { return _mm256_loadu_ps(p); }
PUNA_INLINE void v_store(float* p, VF a) { _mm256_storeu_ps(p, a); }
PUNA_INLINE VF v_add(VF a, VF b) { return _mm256_add_ps(a, b); }
PUNA_INLINE VF v_mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
PUNA_INLINE VF v_div(VF a, VF b) { return _mm256_div_ps(a, b); }
PUNA_INLINE VF v_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
PUNA_INLINE VF v_max(VF a, VF b) { return _mm256_max_ps(a, b); }
PUNA_INLINE VF v_min(VF a, VF b) { return _mm256_min_ps(a, b); }
PUNA_INLINE float v_sum(VF a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
PUNA_INLINE float v_largest(VF a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
PUNA_INLINE VF v_round(VF a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PUNA_INLINE VF v_ldexp(VF a, VF n) {
    const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}
PUNA_INLINE VF v_bf16(const void* p) {
    const __m128i h = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
PUNA_INLINE VF v_f16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
PUNA_INLINE VF v_int8(const void* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}
PUNA_INLINE void v_store_bf16(void* p, VF a) {
    const __m256i u = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    r = _mm256_blendv_epi8(r, quiet, nan);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
    _mm_storeu_si128(static_cast<__m128i*>(p), packed);
}

#elif defined(PUNA_NEON)

using VF = float32x4_t;
constexpr int LANES = 4;
PUNA_INLINE VF v_zero() { return vdupq_n_f32(0.0f); }
PUNA_INLINE VF v_set(float f) { return vdupq_n_f32(f); }
PUNA_INLINE VF v_load(const float* p) { return vld1q_f32(p); }
PUNA_INLINE void v_store(float* p, VF a) { vst1q_f32(p, a); }
PUNA_INLINE VF v_add(VF a, VF b) { return vaddq_f32(a, b); }
PUNA_INLINE VF v_mul(VF a, VF b) { return vmulq_f32(a, b); }
PUNA_INLINE VF v_div(VF a, VF b) { return vdivq_f32(a, b); }
PUNA_INLINE VF v_fma(VF a, VF b, VF c) { return vfmaq_f32(c, a, b); }
PUNA_INLINE VF v_max(VF a, VF b) { return vmaxq_f32(a, b); }
PUNA_INLINE VF v_min(VF a, VF b) { return vminq_f32(a, b); }
PUNA_INLINE float v_sum(VF a) { return vaddvq_f32(a); }
PUNA_INLINE float v_largest(VF a) { return vmaxvq_f32(a); }
PUNA_INLINE VF v_round(VF a) { return vrndnq_f32(a); }
PUNA_INLINE VF v_ldexp(VF a, VF n) {
    const int32x4_t e = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(e, 23)));
}
PUNA_INLINE VF v_bf16(const void* p) {
    uint16x4_t h;
    std::memcpy(&h, p, 8);
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}
PUNA_INLINE VF v_f16(const void* p) {
    float16x4_t h;
    std::memcpy(&h, p, 8);
    return vcvt_f32_f16(h);
}
PUNA_INLINE VF v_int8(const void* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    const int8x8_t b = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(b))));
}
PUNA_INLINE void v_store_bf16(void* p, VF a) {
    const uint32x4_t u = vreinterpretq_u32_f32(a);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const uint32x4_t r = vshrq_n_u32(vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
    const uint32x4_t quiet = vorrq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(0x40));
    const uint16x4_t h = vmovn_u32(vbslq_u32(vceqq_f32(a, a), r, quiet));
    std::memcpy(p, &h, 8);
}

#else  // plain C++: the compiler lowers these vectors to whatever the machine has

constexpr int LANES = 8;
typedef float VF __attribute__((vector_size(32)));
typedef int32_t VI __attribute__((vector_size(32)));
typedef uint32_t VU __attribute__((vector_size(32)));
typedef uint16_t VU16 __attribute__((vector_size(16)));
typedef int8_t VI8 __attribute__((vector_size(8)));
typedef uint8_t VU8 __attribute__((vector_size(8)));
template <class V>
PUNA_INLINE V v_read(const void* p) {
    V v;
    std::memcpy(&v, p, sizeof(V));
    return v;
}
PUNA_INLINE VF v_choose(VI mask, VF a, VF b) { return VF((VI(a) & mask) | (VI(b) & ~mask)); }
PUNA_INLINE VF v_zero() { return VF{}; }
PUNA_INLINE VF v_set(float f) { return VF{} + f; }
PUNA_INLINE VF v_load(const float* p) { return v_read<VF>(p); }
PUNA_INLINE void v_store(float* p, VF a) { std::memcpy(p, &a, sizeof(VF)); }
PUNA_INLINE VF v_add(VF a, VF b) { return a + b; }
PUNA_INLINE VF v_mul(VF a, VF b) { return a * b; }
PUNA_INLINE VF v_div(VF a, VF b) { return a / b; }
PUNA_INLINE VF v_fma(VF a, VF b, VF c) { return a * b + c; }
PUNA_INLINE VF v_max(VF a, VF b) { return v_choose(a > b, a, b); }
PUNA_INLINE VF v_min(VF a, VF b) { return v_choose(a < b, a, b); }
PUNA_INLINE float v_sum(VF a) { return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])); }
PUNA_INLINE float v_largest(VF a) {
    float m = a[0];
    for (int i = 1; i < LANES; ++i) m = a[i] > m ? a[i] : m;
    return m;
}
PUNA_INLINE VF v_round(VF a) {  // for |a| < 2^22
    const VF big = v_set(12582912.0f);
    return (a + big) - big;
}
PUNA_INLINE VF v_ldexp(VF a, VF n) { return a * VF((__builtin_convertvector(n, VI) + 127) << 23); }
PUNA_INLINE VF v_bf16(const void* p) { return VF(__builtin_convertvector(v_read<VU16>(p), VU) << 16); }
PUNA_INLINE VF v_f16(const void* p) {
    const VU h = __builtin_convertvector(v_read<VU16>(p), VU);
    // The exponent is moved from bias 15 to 127 by a product, which is exact for subnormals too.
    VU magnitude = VU(VF((h & 0x7fffu) << 13) * bits<float>(uint32_t(0x77800000)));
    magnitude |= VU(VI(h & 0x7c00u) == 0x7c00) & 0x7f800000u;  // infinity and NaN
    return VF(magnitude | ((h & 0x8000u) << 16));
}
PUNA_INLINE VF v_int8(const void* p) { return __builtin_convertvector(v_read<VI8>(p), VF); }
PUNA_INLINE void v_store_bf16(void* p, VF a) {
    const VU u = VU(a);
    const VU nan = VU(a != a);
    const VU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const VU16 h = __builtin_convertvector((rounded & ~nan) | (((u >> 16) | 0x40u) & nan), VU16);
    std::memcpy(p, &h, sizeof(h));
}

#endif

// FP8 E4M3 (arXiv 2209.05433, section 3): no infinity, codes 0x7f and 0xff are NaN.
// Shifted by seven bits the code is the float16 of value / 256, subnormals included; kFp8Gain makes up for that.

#if defined(PUNA_AVX512)
constexpr float kFp8Gain = 256.0f;
PUNA_INLINE VF v_fp8_scaled(const void* p) {
    const __m128i code = _mm_loadu_si128(static_cast<const __m128i*>(p));
    const __m256i wide = _mm256_slli_epi16(_mm256_cvtepu8_epi16(code), 8);
    const __m256i half = _mm256_and_si256(_mm256_srai_epi16(wide, 1), _mm256_set1_epi16(int16_t(0xbfff)));
    const __m256i magnitude = _mm256_set1_epi16(0x7f00);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(wide, magnitude), magnitude);
    return _mm512_cvtph_ps(_mm256_or_si256(half, nan));
}
#elif defined(PUNA_AVX2)
constexpr float kFp8Gain = 256.0f;
PUNA_INLINE VF v_fp8_scaled(const void* p) {
    const __m128i code = _mm_loadl_epi64(static_cast<const __m128i*>(p));
    const __m128i wide = _mm_unpacklo_epi8(_mm_setzero_si128(), code);
    const __m128i half = _mm_and_si128(_mm_srai_epi16(wide, 1), _mm_set1_epi16(int16_t(0xbfff)));
    const __m128i magnitude = _mm_set1_epi16(0x7f00);
    const __m128i nan = _mm_cmpeq_epi16(_mm_and_si128(wide, magnitude), magnitude);
    return _mm256_cvtph_ps(_mm_or_si128(half, nan));
}
#elif defined(PUNA_NEON)
constexpr float kFp8Gain = 256.0f;
PUNA_INLINE VF v_fp8_scaled(const void* p) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    const uint8x8_t code = vreinterpret_u8_u32(vdup_n_u32(four));
    const uint16x4_t wide = vget_low_u16(vshll_n_u8(code, 8));
    const uint16x4_t shifted = vreinterpret_u16_s16(vshr_n_s16(vreinterpret_s16_u16(wide), 1));
    const uint16x4_t half = vand_u16(shifted, vdup_n_u16(0xbfff));
    const uint16x4_t magnitude = vdup_n_u16(0x7f00);
    const uint16x4_t nan = vceq_u16(vand_u16(wide, magnitude), magnitude);
    return vcvt_f32_f16(vreinterpret_f16_u16(vorr_u16(half, nan)));
}
#else
constexpr float kFp8Gain = 1.0f;
PUNA_INLINE VF v_fp8_scaled(const void* p) {
    const VU code = __builtin_convertvector(v_read<VU8>(p), VU);
    const VU magnitude = code & 0x7fu;
    const VF normal = VF((magnitude << 20) + 0x3c000000u);
    // Below 2^-6 the exponent field is zero: the implied one is taken away again, and the rest counts double.
    const VF small = (normal - 0.0078125f) * 2.0f;
    VU value = VU(v_choose(VI(magnitude) < 8, small, normal));
    value |= VU(VI(magnitude) == 0x7f) & 0x7fc00000u;
    return VF(value | ((code & 0x80u) << 24));
}
#endif

PUNA_INLINE VF v_exp(VF x) {
    x = v_min(v_set(kExpHigh), v_max(v_set(kExpLow), x));
    const VF n = v_round(v_mul(x, v_set(kLog2e)));
    VF r = v_fma(n, v_set(-kLn2High), x);
    r = v_fma(n, v_set(-kLn2Low), r);
    VF e = v_set(1.0f / 5040);
    e = v_fma(e, r, v_set(1.0f / 720));
    e = v_fma(e, r, v_set(1.0f / 120));
    e = v_fma(e, r, v_set(1.0f / 24));
    e = v_fma(e, r, v_set(1.0f / 6));
    e = v_fma(e, r, v_set(0.5f));
    e = v_fma(e, r, v_set(1.0f));
    e = v_fma(e, r, v_set(1.0f));
    return v_ldexp(e, n);
}

// Memory --------------------------------------------------------------------------------------------------------------

// Aligned scratch that grows and is kept for the thread's next call.
class Scratch {
  public:
    ~Scratch() { std::free(data_); }
    template <class T>
    T* take(int64_t count) {
        const size_t bytes = (size_t(count) * sizeof(T) + 127) / 64 * 64;
        if (bytes > size_) {
            std::free(data_);
            data_ = std::aligned_alloc(64, bytes);
            if (data_ == nullptr) std::abort();
            size_ = bytes;
        }
        return static_cast<T*>(data_);
    }

  private:
    void* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace puna
