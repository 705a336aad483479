/* Tries of a tree search, compiled: from roots down to moves behind which nobody has looked, and what was found there up
   again. The arrays are those of forest.py and the formulas those of selection.py, which is also the oracle of this file
   in tests/unit/search/test_compiled_tries.py. No Python, no allocation, no library: the caller owns all memory. */

#include <stdint.h>

#define API __attribute__((visibility("default")))

enum { NONE = -1, UNKNOWN = 2 };

/* Columns of all nodes and edges, as in forest.py. */
typedef struct {
    const int64_t *parent, *first, *count;
    const int8_t *mover;
    const double *value;
    int8_t *low, *high;
    const int64_t *node, *child;
    const double *log_prior, *prior;
    int64_t *visits;
    double *total;
    int64_t *pending;
    int8_t *edge_low, *edge_high;
} Forest;

/* How to choose, and what a search's beginning has fixed for each tree. */
typedef struct {
    int64_t is_gumbel;
    double exploration, reduction;      /* puct */
    double least_visits, value_scale;   /* gumbel ... */
    int64_t width;
    const double *noise;                /* [trees, width] */
    const int64_t *visits_before;       /* [trees, width] */
    const int64_t *schedule_of;         /* [trees] row of schedules */
    int64_t num_steps;
    const int64_t *schedules;           /* [.., num_steps] */
    double *scratch;                    /* [most edges of a node] */
} Selection;

/* What all edges of a node say together. */
typedef struct {
    int64_t first, count, visits, most_visits;
    double mean;                        /* of the node's own value and all tries */
    int floor;                          /* what the node is proven to give at least */
} Summary;

API const char *source_sha256(void) { return SOURCE_SHA256; }

static double exponential(double x) { /* of x <= 0, to 1e-15 of the result */
    if (x < -700.0) return 0.0;
    int64_t k = (int64_t)(x * 1.4426950408889634 - 0.5);
    double r = x - (double)k * 0.693147180369123816490 - (double)k * 1.90821492927058770002e-10, sum = 1.0;
    for (int n = 13; n > 0; n--) sum = 1.0 + sum * r / n;
    union { uint64_t bits; double number; } power = {.bits = (uint64_t)(1023 + k) << 52};
    return sum * power.number;
}

static Summary summarize(const Forest *f, int64_t node) {
    Summary s = {.first = f->first[node], .count = f->count[node], .floor = -1};
    double total = 0.0;
    for (int64_t e = s.first; e < s.first + s.count; e++) {
        int64_t tries = f->visits[e] + f->pending[e];
        s.visits += tries;
        if (tries > s.most_visits) s.most_visits = tries;
        total += f->total[e];
        if (f->edge_low[e] > s.floor) s.floor = f->edge_low[e];
    }
    s.mean = (f->value[node] + total) / (double)(1 + s.visits);
    return s;
}

static int64_t tries_of(const Forest *f, int64_t e) { return f->visits[e] + f->pending[e]; }

static double within_bounds(const Forest *f, int64_t e, double value) {
    double low = f->edge_low[e], high = f->edge_high[e];
    return value < low ? low : value > high ? high : value;
}

/* The mean of all tries; a try that goes on counts as a loss. */
static double value_of(const Forest *f, int64_t e, double unknown) {
    int64_t tries = tries_of(f, e);
    return within_bounds(f, e, tries ? (f->total[e] - (double)f->pending[e]) / (double)tries : unknown);
}

static int is_open(const Forest *f, int64_t e, int floor) {
    if (f->edge_low[e] >= f->edge_high[e] || f->edge_high[e] <= floor) return 0;
    return !(f->child[e] == NONE && f->pending[e] > 0);
}

static int64_t choose_puct(const Forest *f, const Selection *s, int64_t node) {
    Summary all = summarize(f, node);
    double seen = 0.0, best = 0.0;
    int64_t choice = NONE;
    for (int64_t e = all.first; e < all.first + all.count; e++)
        if (tries_of(f, e)) seen += f->prior[e];
    double reduction = s->reduction * __builtin_sqrt(seen);
    double bonus = s->exploration * __builtin_sqrt((double)(all.visits > 1 ? all.visits : 1));
    for (int64_t e = all.first; e < all.first + all.count; e++) {
        if (!is_open(f, e, all.floor)) continue;
        int64_t tries = tries_of(f, e);
        double score = value_of(f, e, all.mean) - (tries ? 0.0 : reduction);
        score += bonus * f->prior[e] / (double)(1 + tries);
        if (choice == NONE || score > best) best = score, choice = e;
    }
    return choice;
}

/* Writes log P + sigma(Q) of a node's edges to scratch; returns the highest. */
static double improved_logits(const Forest *f, const Selection *s, int64_t node, const Summary *all) {
    double seen = 0.0, known = 0.0, highest = 0.0;
    for (int64_t e = all->first; e < all->first + all->count; e++) {
        if (!tries_of(f, e)) continue;
        seen += f->prior[e];
        known += f->prior[e] * value_of(f, e, 0.0);
    }
    known /= seen > 1e-30 ? seen : 1e-30;
    double mixed = (f->value[node] + (double)all->visits * known) / (double)(1 + all->visits);
    double scale = (s->least_visits + (double)all->most_visits) * s->value_scale;
    for (int64_t e = all->first; e < all->first + all->count; e++) {
        double logit = f->log_prior[e] + scale * (value_of(f, e, mixed) + 1.0) / 2.0;
        if (e == all->first || logit > highest) highest = logit;
        s->scratch[e - all->first] = logit;
    }
    return highest;
}

static int64_t choose_inside(const Forest *f, const Selection *s, int64_t node) {
    Summary all = summarize(f, node);
    double highest = improved_logits(f, s, node, &all), sum = 0.0, best = 0.0;
    int64_t choice = NONE;
    for (int64_t at = 0; at < all.count; at++) sum += s->scratch[at] = exponential(s->scratch[at] - highest);
    for (int64_t e = all.first; e < all.first + all.count; e++) {
        if (!is_open(f, e, all.floor)) continue;
        double score = s->scratch[e - all.first] / sum - (double)tries_of(f, e) / (double)(1 + all.visits);
        if (choice == NONE || score > best) best = score, choice = e;
    }
    return choice;
}

static int64_t choose_at_root(const Forest *f, const Selection *s, int64_t node, int64_t tree) {
    Summary all = summarize(f, node);
    improved_logits(f, s, node, &all);
    const double *noise = s->noise + tree * s->width;
    const int64_t *before = s->visits_before + tree * s->width;
    int64_t step = 0, choice = NONE;
    double best = 0.0;
    for (int64_t at = 0; at < all.count; at++) step += tries_of(f, all.first + at) - before[at];
    if (step > s->num_steps - 1) step = s->num_steps - 1;
    int64_t due = s->schedules[s->schedule_of[tree] * s->num_steps + step];
    for (int64_t at = 0; at < all.count; at++) {
        int64_t e = all.first + at, off = tries_of(f, e) - before[at] - due;
        if (!is_open(f, e, all.floor)) continue;
        double score = noise[at] + s->scratch[at];
        if (off) score -= 1e6 * (double)(1 + (off < 0 ? -off : off)); /* proofs have closed all that are due */
        if (choice == NONE || score > best) best = score, choice = e;
    }
    return choice;
}

/* Go down n trees, one after another: leaves[i] is an edge behind which nobody has looked, or NONE where all are being
   looked behind now. The tries begin: edges on the way to a leaf have one more that goes on. */
API void search_find_leaves(
    const Forest *f, const Selection *s, int64_t n, const int64_t *roots, const int64_t *trees, int64_t *leaves) {
    for (int64_t i = 0; i < n; i++) {
        int64_t node = roots[i], edge = NONE;
        do {
            if (!s->is_gumbel) edge = choose_puct(f, s, node);
            else edge = node == roots[i] ? choose_at_root(f, s, node, trees[i]) : choose_inside(f, s, node);
            if (edge == NONE) break;
            node = f->child[edge];
        } while (node != NONE);
        leaves[i] = edge;
        for (; edge != NONE; edge = f->parent[f->node[edge]]) f->pending[edge]++;
    }
}

static void tighten(const Forest *f, int64_t edge, int low, int high) {
    for (;;) {
        f->edge_low[edge] = (int8_t)low;
        f->edge_high[edge] = (int8_t)high;
        int64_t node = f->node[edge], first = f->first[node];
        low = high = -1;
        for (int64_t e = first; e < first + f->count[node]; e++) {
            if (f->edge_low[e] > low) low = f->edge_low[e];
            if (f->edge_high[e] > high) high = f->edge_high[e];
        }
        if (low == f->low[node] && high == f->high[node]) return;
        f->low[node] = (int8_t)low;
        f->high[node] = (int8_t)high;
        edge = f->parent[node];
        if (edge == NONE) return;
        if (f->mover[f->node[edge]] != f->mover[node]) {
            int was_low = low;
            low = -high;
            high = -was_low;
        }
    }
}

/* End n tries: values[i] is in the view of movers[i]; results[i] is exact, in the view of who moves at the leaf's edge,
   or UNKNOWN. */
API void search_back_up(const Forest *f, int64_t n, const int64_t *leaves, const double *values, const int8_t *movers,
                        const int8_t *results) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t edge = leaves[i]; edge != NONE; edge = f->parent[f->node[edge]]) {
            f->total[edge] += f->mover[f->node[edge]] == movers[i] ? values[i] : -values[i];
            f->visits[edge]++;
            f->pending[edge]--;
        }
        if (results[i] != UNKNOWN) tighten(f, leaves[i], results[i], results[i]);
    }
}
