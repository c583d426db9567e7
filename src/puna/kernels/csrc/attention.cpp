// Attention of single queries over a paged cache, as decoding needs it.
//
// All query heads that share a key head are taken together, so that each cached key and value is read once. The softmax
// is the online one (arXiv 1805.02867): a run of tokens at a time, with the sums rescaled when the maximum grows. Every
// sequence is cut at the same places, kPart tokens apart, and the parts are combined at the end: threads share the
// parts, and the result depends neither on their number nor on the other sequences.
#include "api.h"
#include "attention_dots.h"

namespace puna {
namespace {

constexpr int64_t kPart = 256;  // tokens of one piece of work

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
    bool pairs() const {  // products of bf16 pairs, where the machine has them
        return q_bf16 && K % 64 == 0 && (kind == kBfloat16 || kind == kInt8 || kind == kFp8);
    }
};

struct Part {
    int64_t sequence, head, first, last;
};

// Turns a head's scores into weights: updates its maximum and total, and rescales what it has gathered.
template <class Values>
void soften(float* s, typename Values::Weight* p, const Stretch& stretch, float scale, float* top, float* total,
            float* acc, int64_t width) {
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
        if (stretch.scaled) {
            Values::keep(p + t, v_mul(x, v_mul(v_set(Values::kGain), v_load(stretch.value_scale + t))));
            sum = v_add(sum, x);
        } else {
            sum = v_add(sum, Values::keep(p + t, x));  // rounded weights add up to one as well
        }
    }
    if (largest > *top) {
        const float shrink = std::exp(*top - largest);  // zero at first
        *total *= shrink;
        for (int64_t k = 0; k < width; ++k) acc[k] *= shrink;
        *top = largest;
    }
    *total += v_sum(sum);
}

template <class Step, class Values, int R>
void attend_heads(const Problem& a, const Stretch& stretch, const Stretch& next, const uint8_t* q, int64_t q_stride,
                  float* top, float* total, float* acc) {
    alignas(64) float scores[R * kRun];
    alignas(64) typename Values::Weight weights[R * kRun];
    int64_t t = 0;
    for (int64_t i = 0; i < stretch.pages; t += stretch.runs[i++].count) {
        score<Step, R>(stretch.runs[i], q, q_stride, a.K, scores + t);
    }
    const float scale = Step::kGain / std::sqrt(float(a.K));
    for (int r = 0; r < R; ++r) {
        float* gathered = acc + r * a.width();
        soften<Values>(scores + r * kRun, weights + r * kRun, stretch, scale, top + r, total + r, gathered, a.width());
    }
    t = 0;
    for (int64_t i = 0; i < stretch.pages; t += stretch.runs[i++].count) {
        const uint8_t* ahead = i < next.pages ? next.runs[i].keys : stretch.runs[i].keys;
        Values::template weigh<R>(stretch.runs[i], weights + t, a.K, acc, a.width(), ahead);
    }
}

// A stretch of tokens for all query heads of a group.
template <class Step, class Values>
void attend_stretch(const Problem& a, const Stretch& stretch, const Stretch& next, const uint8_t* q, float* result) {
    const int64_t heads = a.shared(), q_stride = a.width() / Step::kElements * Step::kQueryBytes;
    for (int64_t r = 0; r < heads;) {
        const int64_t left = heads - r;
        const uint8_t* queries = q + r * q_stride;
        float *top = result + r, *total = result + heads + r, *acc = result + 2 * heads + r * a.width();
        if (left >= 4) attend_heads<Step, Values, 4>(a, stretch, next, queries, q_stride, top, total, acc), r += 4;
        else if (left >= 2) attend_heads<Step, Values, 2>(a, stretch, next, queries, q_stride, top, total, acc), r += 2;
        else attend_heads<Step, Values, 1>(a, stretch, next, queries, q_stride, top, total, acc), r += 1;
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

// Queries of a group as float32, padded with zeros.
const uint8_t* float_queries(const Problem& a, const Part& part) {
    const int64_t first = part.sequence * a.H + part.head * a.shared();
    float* out = query_scratch.take<float>(a.shared() * a.width());
    const Source source{a.q, a.q_bf16, a.N * a.H, a.K};
    for (int64_t r = 0; r < a.shared(); ++r) widen_row(source, first + r, out + r * a.width());
    return reinterpret_cast<const uint8_t*>(out);
}

// `result`: for each head of the group the maximum, then the totals, then the weighted sums.
void clear(const Problem& a, float* result) {
    for (int64_t r = 0; r < a.shared(); ++r) result[r] = -INFINITY;
    std::memset(result + a.shared(), 0, size_t(4 * a.shared() * (1 + a.width())));
}

template <class Step, class Values>
void attend_part(const Problem& a, const Part& part, const uint8_t* q, float* result) {
    Stretch stretches[2];
    gather(a, part, part.first, stretches[0]);
    int64_t token = part.first;
    for (int turn = 0; token < part.last; turn ^= 1) {
        const Stretch& stretch = stretches[turn];
        token += stretch.count;
        gather(a, part, token, stretches[turn ^ 1]);
        attend_stretch<Step, Values>(a, stretch, stretches[turn ^ 1], q, result);
    }
}

template <class Decode>
void attend_floats(const Problem& a, const Part& part, float* result) {
    const uint8_t* q = float_queries(a, part);
    if (a.K % LANES == 0) return attend_part<FloatStep<Decode>, FloatValues<Decode>>(a, part, q, result);
    Stretch stretch;
    for (int64_t token = part.first; token < part.last; token += stretch.count) {
        gather(a, part, token, stretch);
        widen<Decode>(a, stretch);
        attend_stretch<FloatStep<DecodeFloat>, FloatValues<DecodeFloat>>(a, stretch, stretch, q, result);
    }
}

#if defined(PUNA_PAIRS)
// Queries of a group as bf16, in the order of the step.
template <class Step, class Join>
void attend_pairs(const Problem& a, const Part& part, float* result) {
    const int64_t first = part.sequence * a.H + part.head * a.shared();
    uint16_t* out = query_scratch.take<uint16_t>(a.shared() * a.width());
    for (int64_t r = 0; r < a.shared(); ++r) {
        const uint16_t* from = static_cast<const uint16_t*>(a.q) + (first + r) * a.K;
        for (int64_t k = 0; k < a.K; ++k) out[r * a.width() + Step::order(k)] = from[k];
    }
    attend_part<Step, PairValues<Join>>(a, part, reinterpret_cast<const uint8_t*>(out), result);
}
#endif

// Where a channel is in the sums.
int64_t order(const Problem& a, int64_t channel) {
#if defined(PUNA_PAIRS)
    if (a.pairs() && a.kind == kBfloat16) return Bf16Join::order(channel);
    if (a.pairs()) return CodeJoin<Fp8Dot>::order(channel);
#endif
    return channel;
}

void attend_any(const Problem& a, const Part& part, float* result) {
    clear(a, result);
#if defined(PUNA_PAIRS)
    if (a.pairs()) {
        if (a.kind == kBfloat16) return attend_pairs<Bf16Step, Bf16Join>(a, part, result);
        if (a.kind == kInt8) return attend_pairs<CodeStep<Int8Bf16Dot>, CodeJoin<Int8Bf16Dot>>(a, part, result);
        return attend_pairs<CodeStep<Fp8Dot>, CodeJoin<Fp8Dot>>(a, part, result);
    }
#endif
    switch (a.kind) {
        case kFloat32:
            return attend_floats<DecodeFloat>(a, part, result);
        case kBfloat16:
            return attend_floats<DecodeBf16>(a, part, result);
        case kFloat16:
            return attend_floats<DecodeF16>(a, part, result);
        case kInt8:
            return attend_floats<DecodeInt8>(a, part, result);
        case kFp8:
            return attend_floats<DecodeFp8>(a, part, result);
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
                static_cast<uint16_t*>(a.out)[at + k] = float_to_bf16(sums[order(a, k)] * norm);
            } else {
                static_cast<float*>(a.out)[at + k] = sums[order(a, k)] * norm;
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
