/* AdamW (Loshchilov and Hutter 2019) under a momentum coefficient for every element, for float32 tensors in the memory of a CPU:
   the same arithmetic as `proposals.py`, `momentum.py` and `ranks.py`, in one pass for the ranks of a tensor and one for its step.
   Several threads call the same function with the same job, and take tensors from it until none is left. */

#include <math.h>
#include <stdint.h>

enum { MOST_BITS = 16, BINS = 1 << MOST_BITS, SORTED = 8191, PIECE = 256, DIGITS = 256 };

typedef struct {               /* what a thread works in */
    uint32_t counts[BINS];     /* zeros between two tensors */
    float scales[BINS];        /* 1 - m of a bin, or of an element of a sorted tensor */
    uint64_t sorted[2][SORTED + 1];
} Room;

typedef struct {
    int64_t tensors;           /* how many; everything up to `steps` has this length */
    int64_t next;              /* the first that no thread has taken; 0 at the start */
    int64_t rooms_taken;       /* 0 at the start */
    Room *rooms;               /* one for each thread */
    const int64_t *sizes;
    const int64_t *bits;       /* resolution of the histogram; 0: exact ranks, by sorting (at most SORTED elements) */
    float *const *parameters;
    const float *const *gradients;
    float *const *means;       /* Adam's first moments */
    float *const *squares;     /* Adam's second moments */
    float *const *velocities;  /* rho of the update `velocity`; null: the update `interpolate` */
    float *const *steps;       /* counts of steps, of one element each */
    const float *scales;       /* 1 - m by the top MOST_BITS of |gradient|, ranked in a larger scope; null: rank here */
    int64_t *counts;           /* for `count`: of the top MOST_BITS of |gradient|, added to */
    double rate, beta1, beta2, eps, decay;
    double low, high;          /* m of the lowest and of the highest rank */
} Job;

static int64_t take(int64_t *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }

static inline uint32_t magnitude(float value) {
    union { float number; uint32_t bits; } word = {value};
    return word.bits & 0x7fffffffu;
}

static inline float scale_at(const Job *job, int64_t twice_the_middle, int64_t size) {
    double rank = size < 2 ? 0.5 : (double)twice_the_middle / (2.0 * (double)(size - 1));
    return (float)((1 - job->low) + (job->low - job->high) * rank);
}

static void fill_counts(uint32_t *restrict counts, const float *restrict gradient, int64_t size, int shift) {
    for (int64_t i = 0; i < size; i++) counts[magnitude(gradient[i]) >> shift]++;
}

/* 1 - m of every bin that holds something, by the middle rank of its elements; the counts are zeros again. */
static void rank_bins(const Job *job, Room *room, int64_t size) {
    int64_t before = 0;
    for (int bin = 0; before < size; bin++) {
        int64_t here = room->counts[bin];
        if (!here) continue;
        room->scales[bin] = scale_at(job, 2 * before + here - 1, size);
        before += here;
        room->counts[bin] = 0;
    }
}

/* 1 - m of each of at most SORTED elements by its exact rank, by a radix sort. */
static void rank_elements(const Job *job, Room *room, const float *restrict gradient, int64_t size) {
    uint64_t *from = room->sorted[0], *to = room->sorted[1];
    for (int64_t i = 0; i < size; i++) from[i] = (uint64_t)magnitude(gradient[i]) << 16 | (uint64_t)i;
    for (int shift = 16; shift < 48; shift += 8) {
        uint32_t starts[DIGITS] = {0}, place = 0;
        for (int64_t i = 0; i < size; i++) starts[from[i] >> shift & (DIGITS - 1)]++;
        for (int digit = 0; digit < DIGITS; digit++) {
            uint32_t here = starts[digit];
            starts[digit] = place;
            place += here;
        }
        for (int64_t i = 0; i < size; i++) to[starts[from[i] >> shift & (DIGITS - 1)]++] = from[i];
        uint64_t *other = from;
        from = to;
        to = other;
    }
    for (int64_t first = 0, end; first < size; first = end) {
        for (end = first + 1; end < size && from[end] >> 16 == from[first] >> 16; end++) {}
        float scale = scale_at(job, first + end - 1, size);
        for (int64_t i = first; i < end; i++) room->scales[from[i] & 0xffff] = scale;
    }
}

typedef struct { float rate, fresh1, beta2, fresh2, eps, decay, root; } Factors; /* those of one tensor at one step */

static Factors factors_of(const Job *job, double step) {
    return (Factors){
        .rate = (float)(job->rate / (1 - pow(job->beta1, step))),
        .fresh1 = (float)(1 - job->beta1),
        .beta2 = (float)job->beta2,
        .fresh2 = (float)(1 - job->beta2),
        .eps = (float)job->eps,
        .decay = (float)(job->rate * job->decay),
        .root = (float)(1 / sqrt(1 - pow(job->beta2, step))),
    };
}

static inline float propose(Factors f, float parameter, float gradient, float *restrict mean, float *restrict square) {
    float change = gradient - *mean;
    *mean = f.fresh1 < 0.5f ? *mean + f.fresh1 * change : gradient - (1 - f.fresh1) * change; /* as torch's lerp: exact at 1 */
    *square = f.beta2 * *square + f.fresh2 * gradient * gradient;
    return -f.rate * (*mean / (sqrtf(*square) * f.root + f.eps)) - f.decay * parameter;
}

static void interpolate(Factors f, const float *restrict scale, int64_t size, float *restrict parameter,
                        const float *restrict gradient, float *restrict mean, float *restrict square) {
    for (int64_t i = 0; i < size; i++)
        parameter[i] += scale[i] * propose(f, parameter[i], gradient[i], mean + i, square + i);
}

static void accelerate(Factors f, const float *restrict scale, int64_t size, float *restrict parameter,
                       const float *restrict gradient, float *restrict mean, float *restrict square, float *restrict velocity) {
    for (int64_t i = 0; i < size; i++) {
        float step = propose(f, parameter[i], gradient[i], mean + i, square + i);
        velocity[i] += scale[i] * (step - velocity[i]);
        parameter[i] += velocity[i];
    }
}

/* Rank the elements of a tensor: 1 - m by element where the result is null, or by the top bits of |gradient|. */
static const float *rank_tensor(const Job *job, Room *room, int64_t tensor) {
    int64_t size = job->sizes[tensor], bits = job->bits[tensor];
    if (job->scales) return job->scales;
    if (bits) {
        fill_counts(room->counts, job->gradients[tensor], size, 31 - (int)bits);
        rank_bins(job, room, size);
        return room->scales;
    }
    rank_elements(job, room, job->gradients[tensor], size);
    return 0;
}

static void look_up(float *restrict found, const float *restrict table, const float *restrict gradient, int64_t size, int shift) {
    for (int64_t i = 0; i < size; i++) found[i] = table[magnitude(gradient[i]) >> shift];
}

static void move(const Job *job, Room *room, int64_t tensor) {
    int64_t size = job->sizes[tensor];
    int shift = 31 - (int)(job->scales ? MOST_BITS : job->bits[tensor]), constant = job->low == job->high;
    const float *table = constant ? 0 : rank_tensor(job, room, tensor), *scale;
    Factors factors = factors_of(job, ++*job->steps[tensor]);
    float piece[PIECE];
    for (int64_t i = 0; i < PIECE; i++) piece[i] = (float)(1 - job->low);
    for (int64_t start = 0; start < size; start += PIECE) {
        int64_t length = size - start < PIECE ? size - start : PIECE;
        const float *gradient = job->gradients[tensor] + start;
        float *parameter = job->parameters[tensor] + start;
        float *mean = job->means[tensor] + start, *square = job->squares[tensor] + start;
        if (table) look_up(piece, table, gradient, length, shift);
        scale = table || constant ? piece : room->scales + start;
        if (job->velocities) accelerate(factors, scale, length, parameter, gradient, mean, square, job->velocities[tensor] + start);
        else interpolate(factors, scale, length, parameter, gradient, mean, square);
    }
}

/* Bytes of what a thread works in. */
int64_t room_size(void) { return sizeof(Room); }

/* Take the step of every tensor of a job. */
void step(void *given) {
    Job *job = given;
    Room *room = job->rooms + take(&job->rooms_taken);
    for (int64_t tensor; (tensor = take(&job->next)) < job->tensors;) move(job, room, tensor);
}

/* Count the gradients of every tensor of a job in one histogram. */
void count(void *given) {
    Job *job = given;
    Room *room = job->rooms + take(&job->rooms_taken);
    for (int64_t tensor; (tensor = take(&job->next)) < job->tensors;)
        fill_counts(room->counts, job->gradients[tensor], job->sizes[tensor], 31 - MOST_BITS);
    for (int bin = 0; bin < BINS; bin++) {
        if (room->counts[bin]) __atomic_fetch_add(job->counts + bin, room->counts[bin], __ATOMIC_RELAXED);
        room->counts[bin] = 0;
    }
}
