// Attention of single queries over a paged cache, as decoding needs it.
//
// All query heads that share a key head are taken together, so that each cached key and value is read once. The softmax
// is the online one (arXiv 1805.02867): a run of tokens at a time, with the sums rescaled when the maximum grows. Every
// sequence is cut at the same places, kPart tokens apart, and the parts are combined at the end: threads share the
// parts, and the result depends neither on their number nor on the other sequences.
#include "activations.h"
#include "simd.h"

namespace puna {
namespace {

constexpr int64_t kPart = 256;  // tokens of one piece of work
constexpr int64_t kRun = 64;    // tokens whose scores are held at once
constexpr int kHeads = 4;       // query heads whose sums fit the registers

enum Kind { kFloat32, kBfloat16, kFloat16, kInt8, kFp8 };

struct Cache {
    const uint8_t* data;   // (P, G, S, K); pages may lie apart
    const float* scale;    // (P, G, S), or null
    int64_t page_bytes;    // from page to page
    int64_t scale_page;    // floats from page to page
    int64_t row_bytes;     // of one token of one head
};

struct Problem {
    const void* q;
    bool q_bf16;
    Kind kind;
    Cache keys, values;
    const int32_t* table;  // (N, B) page numbers
    const int64_t* lengths;
    void* out;
    int64_t N, H, G, K, P, S, B, threads;
    int64_t width() const { return padded(K); }
    int64_t shared() const { return H / G; }
};

struct Part {
    int64_t sequence, head, first, last;
};

// Loads -----------------------------------------------------------------------------------------------------------

struct Float32 {
    static constexpr int kSize = 4;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_load(reinterpret_cast<const float*>(p)); }
};
struct Bfloat16 {
    static constexpr int kSize = 2;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_bf16(p); }
};
struct Float16 {
    static constexpr int kSize = 2;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_f16(p); }
};
struct Int8 {
    static constexpr int kSize = 1;
    static constexpr float kGain = 1.0f;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_int8(p); }
};
struct Fp8 {
    static constexpr int kSize = 1;
    static constexpr float kGain = kFp8Gain;
    static PUNA_INLINE VF load(const uint8_t* p) { return v_fp8_scaled(p); }
};

// A step of q.k in float32 after decoding ...
template <class Decode>
struct FloatStep {
    static constexpr int kElements = LANES, kBytes = LANES * Decode::kSize, kQueryBytes = LANES * 4;
    using Keys = VF;
    static PUNA_INLINE Keys load(const uint8_t* p) { return Decode::load(p); }
    static PUNA_INLINE VF add(VF acc, const Keys& k, const uint8_t* q) {
        return v_fma(k, v_load(reinterpret_cast<const float*>(q)), acc);
    }
};
#if defined(PUNA_AVX512_BF16)
// ... or in bf16 pairs, where queries and keys are both bf16.
#define PUNA_BF16_KEYS 1
struct Bf16Step {
    static constexpr int kElements = 32, kBytes = 64, kQueryBytes = 64;
    using Keys = __m512bh;
    static PUNA_INLINE Keys load(const uint8_t* p) { return __m512bh(_mm512_loadu_si512(p)); }
    static PUNA_INLINE VF add(VF acc, const Keys& k, const uint8_t* q) {
        return _mm512_dpbf16_ps(acc, k, __m512bh(_mm512_load_si512(q)));
    }
};
#endif

// The sums of 4 x 4 vectors: out[r][t] of sums[4 r + t].
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

// Tokens that lie one behind the other, a page at most, ...
struct Run {
    const uint8_t *keys, *values;
    int64_t key_stride, value_stride, count;
};

// ... and up to kRun tokens of several pages, whose scores are held at once.
struct Stretch {
    Run runs[kRun];
    int64_t pages = 0, count = 0;
    bool scaled = false;
    alignas(64) float key_scale[kRun], value_scale[kRun];
};

// out[r][t] = q_r . k_t, for R heads and the tokens of the run.
template <class Step, int R>
void score(const Run& run, const uint8_t* q, int64_t q_stride, int64_t K, float* out) {
    const int64_t steps = (K + Step::kElements - 1) / Step::kElements;
    int64_t t = 0;
    for (; t + 4 <= run.count; t += 4) {
        VF sums[16];
        for (int i = 0; i < 16; ++i) sums[i] = v_zero();
        const uint8_t* k = run.keys + t * run.key_stride;
        for (int64_t line = 0; line < 4 * run.value_stride; line += 64) {
            prefetch(run.values + t * run.value_stride + line);
        }
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

// acc[r] += p[r][t] v_t, for V vectors of channels.
template <class Decode, int R, int V>
void weigh(const Run& run, const uint8_t* values, const float* p, float* acc, int64_t width, const uint8_t* ahead) {
    VF sums[R][V];
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) sums[r][v] = v_load(acc + r * width + v * LANES);
    }
    for (int64_t t = 0; t < run.count; ++t) {
        VF row[V];
        for (int v = 0; v < V; ++v) row[v] = Decode::load(values + t * run.value_stride + v * LANES * Decode::kSize);
        for (int line = 0; line < V * LANES * Decode::kSize; line += 64) prefetch(ahead + t * run.key_stride + line);
        for (int r = 0; r < R; ++r) {
            const VF by = v_set(p[r * kRun + t]);
            for (int v = 0; v < V; ++v) sums[r][v] = v_fma(by, row[v], sums[r][v]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) v_store(acc + r * width + v * LANES, sums[r][v]);
    }
}

// Turns a head's scores into weights: updates its maximum and total, and rescales what it has gathered.
void soften(float* s, const Stretch& stretch, float scale, float value_gain, float* top, float* total, float* acc,
            int64_t width) {
    const int64_t whole = (stretch.count + LANES - 1) / LANES * LANES;
    for (int64_t t = stretch.count; t < whole; ++t) s[t] = -INFINITY;
    VF highest = v_set(*top);
    for (int64_t t = 0; t < whole; t += LANES) {
        VF x = v_mul(v_load(s + t), v_set(scale));
        if (stretch.scaled) x = v_mul(x, v_load(stretch.key_scale + t));
        v_store(s + t, x);
        highest = v_max(highest, x);
    }
    const float largest = v_largest(highest);
    VF sum = v_zero();
    for (int64_t t = 0; t < whole; t += LANES) {
        const VF x = v_exp(v_add(v_load(s + t), v_set(-largest)));
        v_store(s + t, stretch.scaled ? v_mul(x, v_mul(v_set(value_gain), v_load(stretch.value_scale + t))) : x);
        sum = v_add(sum, x);
    }
    if (largest > *top) {
        const float shrink = std::exp(*top - largest);  // zero at first
        *total *= shrink;
        for (int64_t k = 0; k < width; ++k) acc[k] *= shrink;
        *top = largest;
    }
    *total += v_sum(sum);
}

template <class Step, class Decode, int R>
void attend_heads(const Problem& a, const Stretch& stretch, const Stretch& next, const uint8_t* q, int64_t q_stride,
                  float* top, float* total, float* acc) {
    alignas(64) float scores[R * kRun];
    int64_t t = 0;
    for (int64_t i = 0; i < stretch.pages; t += stretch.runs[i++].count) {
        score<Step, R>(stretch.runs[i], q, q_stride, a.K, scores + t);
    }
    const float scale = Decode::kGain / std::sqrt(float(a.K));
    for (int r = 0; r < R; ++r) {
        soften(scores + r * kRun, stretch, scale, Decode::kGain, top + r, total + r, acc + r * a.width(), a.width());
    }
    constexpr int V = LANES >= 16 ? 4 : 2;
    t = 0;
    for (int64_t i = 0; i < stretch.pages; t += stretch.runs[i++].count) {
        const Run& run = stretch.runs[i];
        const uint8_t* ahead = i < next.pages ? next.runs[i].keys : run.keys;
        int64_t channel = 0;
        for (; channel + V * LANES <= a.K; channel += V * LANES) {
            const int64_t at = channel * Decode::kSize;
            weigh<Decode, R, V>(run, run.values + at, scores + t, acc + channel, a.width(), ahead + at);
        }
        for (; channel < a.K; channel += LANES) {
            const int64_t at = channel * Decode::kSize;
            weigh<Decode, R, 1>(run, run.values + at, scores + t, acc + channel, a.width(), ahead + at);
        }
    }
}

// A stretch of tokens for all query heads of a group.
template <class Step, class Decode>
void attend_stretch(const Problem& a, const Stretch& stretch, const Stretch& next, const uint8_t* q, float* result) {
    const int64_t heads = a.shared(), q_stride = a.width() / Step::kElements * Step::kQueryBytes;
    for (int64_t r = 0; r < heads;) {
        const int64_t left = heads - r;
        const uint8_t* queries = q + r * q_stride;
        float *top = result + r, *total = result + heads + r, *acc = result + 2 * heads + r * a.width();
        if (left >= 4) attend_heads<Step, Decode, 4>(a, stretch, next, queries, q_stride, top, total, acc), r += 4;
        else if (left >= 2) attend_heads<Step, Decode, 2>(a, stretch, next, queries, q_stride, top, total, acc), r += 2;
        else attend_heads<Step, Decode, 1>(a, stretch, next, queries, q_stride, top, total, acc), r += 1;
    }
}

thread_local Scratch part_scratch, result_scratch, query_scratch, wide_scratch;

// Where head_dim is no multiple of a vector, keys and values are widened into padded rows first.
template <class Decode>
void widen(const Problem& a, Stretch& stretch) {
    const int64_t width = a.width();
    float* rows = wide_scratch.take<float>(2 * kRun * width);
    for (int64_t i = 0; i < stretch.pages; ++i) {
        Run& run = stretch.runs[i];
        float *keys = rows, *values = rows + run.count * width;
        for (int64_t t = 0; t < run.count; ++t) {
            for (int64_t k = 0; k < width; k += LANES) {
                alignas(64) uint8_t key[LANES * Decode::kSize] = {}, value[LANES * Decode::kSize] = {};
                const int64_t left = std::min<int64_t>(LANES, a.K - k), at = k * Decode::kSize;
                if (left > 0) {
                    std::memcpy(key, run.keys + t * run.key_stride + at, size_t(left * Decode::kSize));
                    std::memcpy(value, run.values + t * run.value_stride + at, size_t(left * Decode::kSize));
                }
                v_store(keys + t * width + k, v_mul(v_set(Decode::kGain), Decode::load(key)));
                v_store(values + t * width + k, v_mul(v_set(Decode::kGain), Decode::load(value)));
            }
        }
        rows += 2 * run.count * width;
        run.keys = reinterpret_cast<const uint8_t*>(keys);
        run.values = reinterpret_cast<const uint8_t*>(values);
        run.key_stride = run.value_stride = 4 * width;
    }
}

// The tokens of the part from `token` on, up to kRun of them.
void gather(const Problem& a, const Part& part, int64_t token, Stretch& stretch) {
    stretch.pages = stretch.count = 0;
    stretch.scaled = a.keys.scale != nullptr;
    while (token < part.last && stretch.count < kRun) {
        const int64_t page = a.table[part.sequence * a.B + token / a.S], slot = token % a.S;
        const int64_t row = part.head * a.S + slot;
        Run& run = stretch.runs[stretch.pages++];
        run.keys = a.keys.data + page * a.keys.page_bytes + row * a.keys.row_bytes;
        run.values = a.values.data + page * a.values.page_bytes + row * a.values.row_bytes;
        run.key_stride = a.keys.row_bytes;
        run.value_stride = a.values.row_bytes;
        run.count = std::min(std::min(a.S - slot, part.last - token), kRun - stretch.count);
        if (stretch.scaled) {
            const float* key_scale = a.keys.scale + page * a.keys.scale_page + row;
            const float* value_scale = a.values.scale + page * a.values.scale_page + row;
            std::memcpy(stretch.key_scale + stretch.count, key_scale, size_t(4 * run.count));
            std::memcpy(stretch.value_scale + stretch.count, value_scale, size_t(4 * run.count));
        }
        stretch.count += run.count;
        token += run.count;
    }
    for (int64_t t = stretch.count; stretch.scaled && t % LANES != 0; ++t) {
        stretch.key_scale[t] = stretch.value_scale[t] = 1.0f;
    }
}

// Queries of a group as the steps read them: float32, or bf16; padded with zeros.
const uint8_t* lay_out_queries(const Problem& a, const Part& part, bool bf16_steps) {
    const int64_t first = part.sequence * a.H + part.head * a.shared();
    if (bf16_steps) {
        uint16_t* out = query_scratch.take<uint16_t>(a.shared() * a.width());
        std::memset(out, 0, size_t(2 * a.shared() * a.width()));
        for (int64_t r = 0; r < a.shared(); ++r) {
            std::memcpy(out + r * a.width(), static_cast<const uint16_t*>(a.q) + (first + r) * a.K, size_t(2 * a.K));
        }
        return reinterpret_cast<const uint8_t*>(out);
    }
    float* out = query_scratch.take<float>(a.shared() * a.width());
    const Source source{a.q, a.q_bf16, a.N * a.H, a.K};
    for (int64_t r = 0; r < a.shared(); ++r) widen_row(source, first + r, out + r * a.width());
    return reinterpret_cast<const uint8_t*>(out);
}

// `result`: for each head of the group the maximum, then the totals, then the weighted sums.
template <class Step, class Decode>
void attend_part(const Problem& a, const Part& part, float* result) {
    const int64_t heads = a.shared();
    for (int64_t r = 0; r < heads; ++r) result[r] = -INFINITY;
    std::memset(result + heads, 0, size_t(4 * heads * (1 + a.width())));
    const bool whole = a.K % Step::kElements == 0;
    const uint8_t* q = lay_out_queries(a, part, whole && Step::kQueryBytes / Step::kElements == 2);
    Stretch stretches[2];
    gather(a, part, part.first, stretches[0]);
    int64_t token = part.first;
    for (int turn = 0; token < part.last; turn ^= 1) {
        Stretch &stretch = stretches[turn], &next = stretches[turn ^ 1];
        token += stretch.count;
        gather(a, part, token, next);
        if (whole) {
            attend_stretch<Step, Decode>(a, stretch, next, q, result);
        } else {
            widen<Decode>(a, stretch);
            attend_stretch<FloatStep<Float32>, Float32>(a, stretch, stretch, q, result);
        }
    }
}

void attend_any(const Problem& a, const Part& part, float* result) {
    switch (a.kind) {
        case kFloat32:
            return attend_part<FloatStep<Float32>, Float32>(a, part, result);
        case kBfloat16:
#if defined(PUNA_BF16_KEYS)
            if (a.q_bf16) return attend_part<Bf16Step, Bfloat16>(a, part, result);
#endif
            return attend_part<FloatStep<Bfloat16>, Bfloat16>(a, part, result);
        case kFloat16:
            return attend_part<FloatStep<Float16>, Float16>(a, part, result);
        case kInt8:
            return attend_part<FloatStep<Int8>, Int8>(a, part, result);
        case kFp8:
            return attend_part<FloatStep<Fp8>, Fp8>(a, part, result);
    }
}

// Combines the parts of one sequence and group into its output rows.
void combine(const Problem& a, int64_t sequence, int64_t head, const float* results, int64_t parts, int64_t stride) {
    const int64_t heads = a.shared(), width = a.width();
    float* sums = query_scratch.take<float>(width);
    for (int64_t r = 0; r < heads; ++r) {
        float top = -INFINITY, total = 0.0f;
        for (int64_t i = 0; i < parts; ++i) top = results[i * stride + r] > top ? results[i * stride + r] : top;
        std::memset(sums, 0, size_t(4 * width));
        for (int64_t i = 0; i < parts; ++i) {
            const float* result = results + i * stride;
            const float by = parts == 1 ? 1.0f : std::exp(result[r] - top);
            total += by * result[heads + r];
            const float* acc = result + 2 * heads + r * width;
            for (int64_t k = 0; k < width; ++k) sums[k] += by * acc[k];
        }
        const float norm = parts == 0 ? 0.0f : 1.0f / total;
        const int64_t at = (sequence * a.H + head * heads + r) * a.K;
        for (int64_t k = 0; k < a.K; ++k) {
            if (a.q_bf16) {
                static_cast<uint16_t*>(a.out)[at + k] = float_to_bf16(sums[k] * norm);
            } else {
                static_cast<float*>(a.out)[at + k] = sums[k] * norm;
            }
        }
    }
}

void attend(const Problem& a) {
    int64_t count = 0;
    for (int64_t n = 0; n < a.N; ++n) count += (a.lengths[n] + kPart - 1) / kPart * a.G;
    Part* parts = part_scratch.take<Part>(count);
    const int64_t stride = a.shared() * (2 + a.width());
    float* results = result_scratch.take<float>(count * stride);
    int64_t made = 0;
    for (int64_t n = 0; n < a.N; ++n) {
        for (int64_t g = 0; g < a.G; ++g) {
            for (int64_t first = 0; first < a.lengths[n]; first += kPart) {
                parts[made++] = {n, g, first, std::min(first + kPart, a.lengths[n])};
            }
        }
    }
    share(a.threads, count, 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) attend_any(a, parts[i], results + i * stride);
    });
    int64_t at = 0;
    for (int64_t n = 0; n < a.N; ++n) {
        const int64_t each = (a.lengths[n] + kPart - 1) / kPart;
        for (int64_t g = 0; g < a.G; ++g, at += each) combine(a, n, g, results + at * stride, each, stride);
    }
}

// The first fault of the table, as 1 + its place, negative for a length; 0 where all can be read.
int64_t fault(const Problem& a) {
    for (int64_t n = 0; n < a.N; ++n) {
        if (a.lengths[n] < 0 || a.lengths[n] > a.B * a.S) return -(1 + n);
        for (int64_t b = 0; b * a.S < a.lengths[n]; ++b) {
            const int32_t page = a.table[n * a.B + b];
            if (page < 0 || page >= a.P) return 1 + n * a.B + b;
        }
    }
    return 0;
}

}  // namespace
}  // namespace puna

using namespace puna;

extern "C" {

// q and out (N, H, K), bfloat16 or float32; `kind` of the cache as in Kind; page strides in elements.
// Returns 0, or names what in the table or the lengths points outside the cache, having written nothing.
int64_t puna_decode_attention(const void* q, int q_bf16, int kind, const uint8_t* keys, const uint8_t* values,
                              const float* key_scale, const float* value_scale, int64_t key_page,
                              int64_t value_page, int64_t key_scale_page, int64_t value_scale_page, const int32_t* table,
                               const int64_t* lengths, void* out, int64_t N, int64_t H, int64_t G,
                              int64_t K, int64_t P, int64_t S, int64_t B, int64_t threads) {
    const int64_t size = kind == kFloat32 ? 4 : kind == kBfloat16 || kind == kFloat16 ? 2 : 1;
    Problem a{};
    a.q = q;
    a.q_bf16 = q_bf16 != 0;
    a.kind = Kind(kind);
    a.keys = {keys, key_scale, key_page * size, key_scale_page, K * size};
    a.values = {values, value_scale, value_page * size, value_scale_page, K * size};
    a.table = table;
    a.lengths = lengths;
    a.out = out;
    a.N = N, a.H = H, a.G = G, a.K = K, a.P = P, a.S = S, a.B = B, a.threads = threads;
    if (const int64_t at = fault(a)) return at;
    attend(a);
    return 0;
}

}  // extern "C"
