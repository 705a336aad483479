/* Shogi on many boards, compiled: make moves, find the legal ones, write the arrays of keisei_lightning.games.shogi.

   What is not needed for every ply (SFEN, records, who is to blame for a repetition, mates in one) stays with rsshogi,
   which is also the oracle of this file in tests/unit/games/test_shogi_kernel.py. Observation bytes, action labels and
   move codes are those of shogi_codec.py. No Python, no allocation: the caller owns all memory, and gives legal moves
   and valid positions only.

   A board is a mailbox with a rim of walls: 13 columns of 11, so that no step of a piece, not a knight's either, leaves
   the array. A *way* is one of the codec's ten directions in the mover's view; Black's steps are STEP[way], White's the
   opposite. */

#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default")))

enum { EMPTY, PAWN, LANCE, KNIGHT, SILVER, BISHOP, ROOK, GOLD, KING, PROMOTED = 8, BLACK = 16, WHITE = 32, WALL = 64 };
enum { SQUARES = 81, COLUMN = 11, CELLS = 13 * COLUMN, HAND_KINDS = 7 };
enum { NUM_WAYS = 10, FIRST_DROP = 20, KING_WAYS = 8, LABELS = 27 * SQUARES, MASK_BYTES = (LABELS + 7) / 8 };
enum { OWN_HAND = SQUARES, OTHERS_HAND = OWN_HAND + HAND_KINDS, REPETITION = OTHERS_HAND + HAND_KINDS, CHECK, PLY };
enum { OBSERVATION = PLY + 1, OPPONENTS = 14, MAX_MOVES = 600 /* 593 are possible */ };

typedef struct {
    uint64_t key;          /* the sum of a random number for each piece where it is, on the board or in a hand */
    uint8_t cells[CELLS];  /* EMPTY, WALL or kind | colour */
    uint8_t hands[2][HAND_KINDS + 1]; /* [seat][kind] */
    uint8_t king[2];       /* cell of each king */
    uint8_t turn;          /* seat to move */
} Position;

/* The arrays of all boards; games.shogi_kernel.py makes them. */
typedef struct {
    Position *positions;   /* [G] */
    uint64_t *keys;        /* [G, capacity + 1] of every position since the start */
    uint16_t *codes;       /* [G, capacity] of every move since the start */
    int32_t *played;       /* [G] number of moves since the start */
    int64_t capacity;
    uint8_t *state;        /* [G, OBSERVATION]; the caller writes the byte PLY */
    int8_t *mover;         /* [G] */
    uint8_t *mask;         /* [G, MASK_BYTES] legal labels as bits, the first one highest */
} Boards;

/* up, up left, up right, left, right, down, down left, down right, knight left, knight right: a file is a column */
static const int STEP[NUM_WAYS] = {
    -1, COLUMN - 1, -COLUMN - 1, COLUMN, -COLUMN, 1, COLUMN + 1, -COLUMN + 1, COLUMN - 2, -COLUMN - 2};
enum { ORTHOGONAL = 0x039, DIAGONAL = 0x0C6, GOLDEN = 0x03F, ALL_ROUND = 0x0FF };
/* Ways of one step, and ways of any number of steps, by kind. */
static const uint16_t STEPS[16] = {
    [PAWN] = 0x001, [KNIGHT] = 0x300, [SILVER] = 0x0C7, [GOLD] = GOLDEN, [KING] = ALL_ROUND,
    [PROMOTED + PAWN] = GOLDEN, [PROMOTED + LANCE] = GOLDEN, [PROMOTED + KNIGHT] = GOLDEN, [PROMOTED + SILVER] = GOLDEN,
    [PROMOTED + BISHOP] = ORTHOGONAL, [PROMOTED + ROOK] = DIAGONAL};
static const uint16_t SLIDES[16] = {
    [LANCE] = 0x001, [BISHOP] = DIAGONAL, [ROOK] = ORTHOGONAL,
    [PROMOTED + BISHOP] = DIAGONAL, [PROMOTED + ROOK] = ORTHOGONAL};
/* The first rank of the mover's view on which a kind can still move. */
static const uint8_t FIRST_RANK[16] = {[PAWN] = 1, [LANCE] = 1, [KNIGHT] = 2};

static uint8_t cell_of[SQUARES], square_of[CELLS];
static uint8_t seen_square[2][CELLS], seen_rank[2][CELLS]; /* of a cell, by the seat that looks */
static uint8_t code_seen_by[2][WALL]; /* observation's square code of a piece, by the seat that looks */
static uint64_t board_keys[WALL][SQUARES], hand_keys[2][HAND_KINDS + 1];

static int kind_of(uint8_t piece) { return piece & 15; }
static int is_of(int seat, uint8_t piece) { return piece & BLACK << seat; }
static uint8_t piece_of(int seat, int kind) { return (uint8_t)(BLACK << seat | kind); }
static int step_of(int seat, int way) { return seat ? -STEP[way] : STEP[way]; }
static int seen_by(int seat, int square) { return seat ? SQUARES - 1 - square : square; }

/* ---- attacks */

/* Whether a seat attacks a cell, by walking from there against the ways of its pieces. */
static int is_attacked(const Position *p, int cell, int by) {
    for (int way = 0; way < KING_WAYS; way++) {
        int back = -step_of(by, way), from = cell + back;
        uint8_t piece = p->cells[from];
        if (piece == EMPTY) {
            do piece = p->cells[from += back];
            while (piece == EMPTY);
            if (is_of(by, piece) && SLIDES[kind_of(piece)] >> way & 1) return 1;
        } else if (is_of(by, piece) && (STEPS[kind_of(piece)] | SLIDES[kind_of(piece)]) >> way & 1) {
            return 1;
        }
    }
    uint8_t knight = piece_of(by, KNIGHT);
    return p->cells[cell - step_of(by, 8)] == knight || p->cells[cell - step_of(by, 9)] == knight;
}

typedef struct {
    int num_checkers;
    int8_t pinned_along[CELLS]; /* the step from the king to a piece that must stay on that line; 0: it is free */
    uint8_t answers[CELLS];     /* with one checker: where a piece may go, to take it or to come between */
} Threats;

/* Who gives check to the side to move, and which of its pieces are pinned. */
static void find_threats(const Position *p, Threats *threats) {
    int seat = p->turn, other = 1 - seat, king = p->king[seat];
    memset(threats, 0, sizeof *threats);
    for (int way = 0; way < KING_WAYS; way++) {
        int out = -step_of(other, way), cell = king + out, shield = 0;
        while (p->cells[cell] == EMPTY) cell += out;
        if (is_of(seat, p->cells[cell])) {
            shield = cell;
            do cell += out;
            while (p->cells[cell] == EMPTY);
        }
        uint8_t piece = p->cells[cell];
        if (!is_of(other, piece)) continue;
        int reach = SLIDES[kind_of(piece)] | (cell == king + out ? STEPS[kind_of(piece)] : 0);
        if (!(reach >> way & 1)) continue;
        if (shield) {
            threats->pinned_along[shield] = (int8_t)out;
        } else {
            threats->num_checkers++;
            for (int at = cell; at != king; at -= out) threats->answers[at] = 1;
        }
    }
    uint8_t knight = piece_of(other, KNIGHT);
    for (int way = 8; way < NUM_WAYS; way++) {
        int cell = king - step_of(other, way);
        if (p->cells[cell] != knight) continue;
        threats->num_checkers++;
        threats->answers[cell] = 1;
    }
}

/* ---- legal moves */

static uint16_t *add(uint16_t *end, const Position *p, int type, int to) {
    *end = (uint16_t)(type * SQUARES + seen_square[p->turn][to]);
    return end + 1;
}

/* A piece's move in both forms that the rules leave it. */
static uint16_t *add_board_move(uint16_t *end, const Position *p, int from, int to, int way, int kind) {
    int to_rank = seen_rank[p->turn][to];
    if (kind <= ROOK && (to_rank < 3 || seen_rank[p->turn][from] < 3)) end = add(end, p, NUM_WAYS + way, to);
    return to_rank >= FIRST_RANK[kind] ? add(end, p, way, to) : end;
}

static uint16_t *add_king_moves(uint16_t *end, Position *p) {
    int seat = p->turn, king = p->king[seat], blocked = BLACK << seat | WALL;
    uint8_t itself = p->cells[king];
    p->cells[king] = EMPTY; /* it gives no shelter to the square behind it */
    for (int way = 0; way < KING_WAYS; way++) {
        int to = king + step_of(seat, way);
        if (p->cells[to] & blocked || is_attacked(p, to, 1 - seat)) continue;
        end = add(end, p, way, to);
    }
    p->cells[king] = itself;
    return end;
}

static uint16_t *add_piece_moves(uint16_t *end, const Position *p, const Threats *threats) {
    int seat = p->turn, blocked = BLACK << seat | WALL;
    for (int square = 0; square < SQUARES; square++) {
        int from = cell_of[square], kind = kind_of(p->cells[from]), line = threats->pinned_along[from];
        if (!is_of(seat, p->cells[from]) || kind == KING) continue;
        unsigned ways = STEPS[kind] | SLIDES[kind];
        for (int way = 0; ways >> way; way++) {
            int step = step_of(seat, way), to = from + step;
            if (!(ways >> way & 1) || (line && step != line && step != -line)) continue;
            while (!(p->cells[to] & blocked)) {
                if (!threats->num_checkers || threats->answers[to]) end = add_board_move(end, p, from, to, way, kind);
                if (p->cells[to] || !(SLIDES[kind] >> way & 1)) break;
                to += step;
            }
        }
    }
    return end;
}

static uint16_t *generate(uint16_t *end, Position *p, const Threats *threats);

/* A pawn may not be dropped so that it mates: whether the king next to it would be left without a move. */
static int drop_mates(Position *p, int to) {
    uint16_t replies[MAX_MOVES];
    Threats threats;
    p->cells[to] = piece_of(p->turn, PAWN);
    p->turn ^= 1;
    find_threats(p, &threats);
    int mates = generate(replies, p, &threats) == replies;
    p->turn ^= 1;
    p->cells[to] = EMPTY;
    return mates;
}

static uint16_t *add_drops(uint16_t *end, Position *p, const Threats *threats) {
    int seat = p->turn;
    const uint8_t *hand = p->hands[seat];
    uint8_t pawn = piece_of(seat, PAWN);
    /* All kinds but the pawn, those last that are not for every rank; and how many of them are for the first rank in
       the mover's view, the second and the others. */
    int kinds[HAND_KINDS], on_first = 0;
    for (int kind = SILVER; kind <= GOLD; kind++)
        if (hand[kind]) kinds[on_first++] = kind;
    int on_second = on_first;
    if (hand[LANCE]) kinds[on_second++] = LANCE;
    int elsewhere = on_second;
    if (hand[KNIGHT]) kinds[elsewhere++] = KNIGHT;
    int before_king = p->king[1 - seat] - step_of(seat, 0); /* where a pawn gives check */
    for (int file = 0; file < 9; file++) {
        const uint8_t *cells = p->cells + cell_of[file * 9];
        int drops_pawn = hand[PAWN] && !memchr(cells, pawn, 9);
        for (int rank = 0; rank < 9; rank++) {
            int to = cell_of[file * 9] + rank, seen = seat ? 8 - rank : rank;
            if (cells[rank] != EMPTY || (threats->num_checkers && !threats->answers[to])) continue;
            if (drops_pawn && seen > 0 && !(to == before_king && drop_mates(p, to)))
                end = add(end, p, FIRST_DROP, to);
            int num_kinds = seen > 1 ? elsewhere : seen ? on_second : on_first;
            for (int at = 0; at < num_kinds; at++) end = add(end, p, FIRST_DROP + kinds[at] - PAWN, to);
        }
    }
    return end;
}

/* Labels of all legal moves of the side to move. */
static uint16_t *generate(uint16_t *end, Position *p, const Threats *threats) {
    end = add_king_moves(end, p);
    if (threats->num_checkers > 1) return end;
    end = add_piece_moves(end, p, threats);
    for (int kind = PAWN; kind <= GOLD; kind++)
        if (p->hands[p->turn][kind]) return add_drops(end, p, threats);
    return end;
}

/* ---- making moves */

/* The code of a legal label: its piece is the first one that is met on the way back from its target. */
static uint16_t code_of(const Position *p, int label) {
    int type = label / SQUARES, target = seen_by(p->turn, label % SQUARES);
    if (type >= FIRST_DROP) return (uint16_t)(target | (type - FIRST_DROP + PAWN) << 7 | 1 << 14);
    int way = type % NUM_WAYS, step = step_of(p->turn, way), from = cell_of[target] - step;
    while (p->cells[from] == EMPTY) from -= step;
    return (uint16_t)(target | square_of[from] << 7 | (type >= NUM_WAYS) << 15);
}

static void put(Position *p, int cell, uint8_t piece) {
    p->cells[cell] = piece;
    p->key += board_keys[piece][square_of[cell]];
    if (kind_of(piece) == KING) p->king[is_of(1, piece) != 0] = (uint8_t)cell;
}

static uint8_t take(Position *p, int cell) {
    uint8_t piece = p->cells[cell];
    p->cells[cell] = EMPTY;
    p->key -= board_keys[piece][square_of[cell]];
    return piece;
}

static void change_hand(Position *p, int seat, int kind, int by) {
    p->hands[seat][kind] = (uint8_t)(p->hands[seat][kind] + by);
    p->key += (uint64_t)by * hand_keys[seat][kind];
}

static void make_move(Position *p, uint16_t code) {
    int seat = p->turn, to = cell_of[code & 127], from = code >> 7 & 127;
    if (code >> 14 & 1) {
        change_hand(p, seat, from, -1);
        put(p, to, piece_of(seat, from));
    } else {
        uint8_t piece = take(p, cell_of[from]);
        if (p->cells[to] != EMPTY) {
            int caught = kind_of(take(p, to));
            change_hand(p, seat, caught > PROMOTED ? caught - PROMOTED : caught, 1);
        }
        put(p, to, (uint8_t)(piece + (code >> 15 ? PROMOTED : 0)));
    }
    p->turn ^= 1;
}

/* How often the present position occurred before: sides take turns, so it can only be two moves ago, or four... */
static int count_earlier(const uint64_t *keys, int present) {
    int count = 0;
    for (int at = present - 2; at >= 0; at -= 2) count += keys[at] == keys[present];
    return count;
}

/* ---- the arrays */

static void write_state(const Position *p, uint8_t *state, int earlier) {
    const uint8_t *code = code_seen_by[p->turn];
    if (p->turn)
        for (int square = 0; square < SQUARES; square++) state[square] = code[p->cells[cell_of[SQUARES - 1 - square]]];
    else
        for (int square = 0; square < SQUARES; square++) state[square] = code[p->cells[cell_of[square]]];
    memcpy(state + OWN_HAND, p->hands[p->turn] + 1, HAND_KINDS);
    memcpy(state + OTHERS_HAND, p->hands[1 - p->turn] + 1, HAND_KINDS);
    state[REPETITION] = (uint8_t)(earlier < 255 ? earlier : 255);
}

/* Bring a board's arrays up to date; returns how many legal moves it has. */
static int write_board(const Boards *b, int64_t row) {
    Position *p = &b->positions[row];
    uint8_t *mask = b->mask + row * MASK_BYTES, *state = b->state + row * OBSERVATION;
    uint16_t labels[MAX_MOVES];
    Threats threats;
    find_threats(p, &threats);
    const uint16_t *end = generate(labels, p, &threats);
    memset(mask, 0, MASK_BYTES);
    for (const uint16_t *label = labels; label < end; label++) mask[*label >> 3] |= (uint8_t)(128 >> (*label & 7));
    write_state(p, state, count_earlier(b->keys + row * (b->capacity + 1), b->played[row]));
    state[CHECK] = threats.num_checkers > 0;
    b->mover[row] = (int8_t)p->turn;
    return (int)(end - labels);
}

static void record_move(const Boards *b, int64_t row, uint16_t code) {
    Position *p = &b->positions[row];
    make_move(p, code);
    b->codes[row * b->capacity + b->played[row]++] = code;
    b->keys[row * (b->capacity + 1) + b->played[row]] = p->key;
}

/* ---- what Python calls */

/* SHA-256 of this file when it was compiled, so that an old library is not taken for this one. */
API const char *source_sha256(void) { return SOURCE_SHA256; }

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Fill the tables, once, before anything else; returns sizeof(Position). */
API int64_t shogi_prepare(void) {
    uint64_t random = 9;
    for (int square = 0; square < SQUARES; square++) {
        cell_of[square] = (uint8_t)((square / 9 + 2) * COLUMN + square % 9 + 1);
        square_of[cell_of[square]] = (uint8_t)square;
        for (int seat = 0; seat < 2; seat++) {
            seen_square[seat][cell_of[square]] = (uint8_t)seen_by(seat, square);
            seen_rank[seat][cell_of[square]] = (uint8_t)(seen_by(seat, square) % 9);
        }
    }
    for (int seat = 0; seat < 2; seat++) {
        for (int kind = PAWN; kind <= PROMOTED + ROOK; kind++) {
            uint8_t piece = piece_of(seat, kind);
            for (int square = 0; square < SQUARES; square++) board_keys[piece][square] = next_random(&random);
            code_seen_by[seat][piece] = (uint8_t)kind;
            code_seen_by[1 - seat][piece] = (uint8_t)(kind + OPPONENTS);
        }
        for (int kind = PAWN; kind <= GOLD; kind++) hand_keys[seat][kind] = next_random(&random);
    }
    return (int64_t)sizeof(Position);
}

/* Begin a game: from a position, as the first 95 bytes of its observation, then some moves. */
API void shogi_begin(
    const Boards *b, int64_t row, const uint8_t *start, int32_t turn, const uint16_t *codes, int64_t num_codes) {
    Position *p = &b->positions[row];
    memset(p, 0, sizeof *p);
    memset(p->cells, WALL, CELLS);
    p->turn = (uint8_t)turn;
    for (int square = 0; square < SQUARES; square++) {
        int cell = cell_of[square], seen = start[seen_by(turn, square)];
        p->cells[cell] = EMPTY;
        if (seen) put(p, cell, seen > OPPONENTS ? piece_of(1 - turn, seen - OPPONENTS) : piece_of(turn, seen));
    }
    for (int kind = PAWN; kind <= GOLD; kind++) {
        change_hand(p, turn, kind, start[OWN_HAND - 1 + kind]);
        change_hand(p, 1 - turn, kind, start[OTHERS_HAND - 1 + kind]);
    }
    b->played[row] = 0;
    b->keys[row * (b->capacity + 1)] = p->key;
    for (int64_t at = 0; at < num_codes; at++) record_move(b, row, codes[at]);
    write_board(b, row);
}

/* Move codes of n labels, int64 [n]; 0 where the label is illegal or none at all. */
API void shogi_look_up(const Boards *b, int64_t n, const int64_t *rows, const int64_t *labels, int64_t *codes) {
    for (int64_t at = 0; at < n; at++) {
        int64_t label = labels[at];
        const uint8_t *mask = b->mask + rows[at] * MASK_BYTES;
        int is_legal = label >= 0 && label < LABELS && mask[label >> 3] & 128 >> (label & 7);
        codes[at] = is_legal ? code_of(&b->positions[rows[at]], (int)label) : 0;
    }
}

/* Make one legal move on each of n boards and write their arrays; sizes: int64 [n], legal moves of each after it. */
API void shogi_advance(const Boards *b, int64_t n, const int64_t *rows, const int64_t *codes, int64_t *sizes) {
    for (int64_t at = 0; at < n; at++) {
        record_move(b, rows[at], (uint16_t)codes[at]);
        sizes[at] = write_board(b, rows[at]);
    }
}

/* ---- copies

   A copy is one block of bytes: the number of moves since the start, then all that the arrays hold of the board. */

enum { COPY = 4 + sizeof(Position) + OBSERVATION + MASK_BYTES + 8 }; /* and 10 bytes a move */

/* Bytes of a copy of a board without a move; each move adds 10. */
API int64_t shogi_copy_bytes(void) { return COPY; }

static uint8_t *write_bytes(uint8_t *to, const void *from, size_t size) { return (uint8_t *)memcpy(to, from, size) + size; }

static const uint8_t *read_bytes(const uint8_t *from, void *to, size_t size) {
    memcpy(to, from, size);
    return from + size;
}

/* Copy n boards to blocks; starts: int64 [n], where in the memory each begins. */
API void shogi_copy(const Boards *b, int64_t n, const int64_t *rows, const int64_t *starts, uint8_t *blocks) {
    for (int64_t at = 0; at < n; at++) {
        int64_t row = rows[at];
        size_t played = (size_t)b->played[row];
        uint8_t *to = write_bytes(blocks + starts[at], &b->played[row], sizeof *b->played);
        to = write_bytes(to, &b->positions[row], sizeof(Position));
        to = write_bytes(to, b->state + row * OBSERVATION, OBSERVATION);
        to = write_bytes(to, b->mask + row * MASK_BYTES, MASK_BYTES);
        to = write_bytes(to, b->keys + row * (b->capacity + 1), (played + 1) * sizeof *b->keys);
        write_bytes(to, b->codes + row * b->capacity, played * sizeof *b->codes);
    }
}

/* Put n boards where the boards were from which blocks were copied; the arrays have room for their moves. */
API void shogi_put(const Boards *b, int64_t n, const int64_t *rows, const int64_t *starts, const uint8_t *blocks) {
    for (int64_t at = 0; at < n; at++) {
        int64_t row = rows[at];
        const uint8_t *from = read_bytes(blocks + starts[at], &b->played[row], sizeof *b->played);
        size_t played = (size_t)b->played[row];
        from = read_bytes(from, &b->positions[row], sizeof(Position));
        from = read_bytes(from, b->state + row * OBSERVATION, OBSERVATION);
        from = read_bytes(from, b->mask + row * MASK_BYTES, MASK_BYTES);
        from = read_bytes(from, b->keys + row * (b->capacity + 1), (played + 1) * sizeof *b->keys);
        read_bytes(from, b->codes + row * b->capacity, played * sizeof *b->codes);
        b->mover[row] = (int8_t)b->positions[row].turn;
    }
}

/* ---- mate search

   Df-pn (Nagai 2002, Df-pn algorithm for searching AND/OR trees and its applications): the attacker gives check with
   every move, the defender answers with any. A node's proof number is how many leaves must still be shown to be mates
   to prove it, its disproof number how many must not be; phi is the one that the side to move wants to become 0, delta
   the other's. A position that is met again on the way counts as no mate, so that what is proven is a mate. */

enum { MATE_DEPTH = 64 };
static const uint32_t MATE_INFINITY = 1u << 28;

typedef struct {
    uint64_t key;
    uint32_t phi, delta;
} MateEntry;

typedef struct {
    MateEntry *table;    /* [mask + 1]; key 0: empty */
    uint64_t mask;
    int64_t nodes, max_nodes;
    int attacker, max_depth;
    uint64_t path[MATE_DEPTH + 1];
    int best;            /* label at the root that was proven */
} MateSearch;

static uint64_t mate_key(const Position *p) {
    uint64_t key = p->key * 2 + p->turn; /* the turn is no part of a position's key */
    return key ? key : 1;
}

static void mate_recall(const MateSearch *s, uint64_t key, uint32_t *phi, uint32_t *delta) {
    const MateEntry *entry = &s->table[key & s->mask];
    *phi = entry->key == key ? entry->phi : 1;
    *delta = entry->key == key ? entry->delta : 1;
}

static void mate_note(MateSearch *s, uint64_t key, uint32_t phi, uint32_t delta) {
    s->table[key & s->mask] = (MateEntry){key, phi, delta};
}

static void mate_visit(MateSearch *s, Position *p, uint32_t phi_limit, uint32_t delta_limit, int depth) {
    uint16_t labels[MAX_MOVES];
    uint64_t keys[MAX_MOVES];
    Threats threats;
    int is_attack = p->turn == s->attacker, count = 0;
    uint64_t own = mate_key(p);
    s->nodes++;
    s->path[depth] = own;
    find_threats(p, &threats);
    const uint16_t *end = generate(labels, p, &threats);
    for (const uint16_t *label = labels; label < end; label++) {
        Position child = *p;
        make_move(&child, code_of(p, *label));
        if (is_attack && !is_attacked(&child, child.king[child.turn], s->attacker)) continue;
        keys[count] = mate_key(&child);
        labels[count++] = *label;
    }
    if (count == 0) { /* nobody to check with, or mated: lost for the side to move */
        mate_note(s, own, MATE_INFINITY, 0);
        return;
    }
    for (;;) {
        uint32_t phi = MATE_INFINITY, second = MATE_INFINITY, best_phi = 0;
        uint64_t delta = 0;
        int best = -1;
        for (int at = 0; at < count; at++) {
            uint32_t child_phi, child_delta;
            int is_loop = depth == s->max_depth; /* or too deep */
            for (int up = depth; up >= 0 && !is_loop; up--) is_loop = s->path[up] == keys[at];
            if (is_loop) { /* no mate: bad for the attacker, whoever moves there */
                child_phi = is_attack ? 0 : MATE_INFINITY;
                child_delta = is_attack ? MATE_INFINITY : 0;
            } else {
                mate_recall(s, keys[at], &child_phi, &child_delta);
            }
            delta += child_phi;
            if (child_delta < phi) {
                second = phi;
                phi = child_delta;
                best_phi = child_phi;
                best = at;
            } else if (child_delta < second) {
                second = child_delta;
            }
        }
        uint32_t sum = delta < MATE_INFINITY ? (uint32_t)delta : MATE_INFINITY;
        if (phi >= phi_limit || sum >= delta_limit || s->nodes >= s->max_nodes) {
            mate_note(s, own, phi, sum);
            if (depth == 0 && phi == 0) s->best = labels[best];
            return;
        }
        Position child = *p;
        make_move(&child, code_of(p, labels[best]));
        uint64_t rest = (uint64_t)delta_limit + best_phi - sum;
        mate_visit(s, &child, rest < MATE_INFINITY ? (uint32_t)rest : MATE_INFINITY,
                   phi_limit < second + 1 ? phi_limit : second + 1, depth + 1);
    }
}

/* Labels of moves with which the movers of n boards mate by force, every move a check: int64 [n]; -1: none was found.

   max_depths: int64 [n], plies of the longest mate, at most MATE_DEPTH of them; table: [num_entries], a power of two. */
API void shogi_find_mates(const Boards *b, int64_t n, const int64_t *rows, const int64_t *max_depths, int64_t max_nodes,
                          void *table, int64_t num_entries, int64_t *labels) {
    for (int64_t at = 0; at < n; at++) {
        Position root = b->positions[rows[at]];
        MateSearch search = {.table = table, .mask = (uint64_t)num_entries - 1, .max_nodes = max_nodes, .best = -1};
        memset(table, 0, (size_t)num_entries * sizeof *search.table);
        search.attacker = root.turn;
        search.max_depth = (int)(max_depths[at] < MATE_DEPTH ? max_depths[at] : MATE_DEPTH);
        mate_visit(&search, &root, MATE_INFINITY, MATE_INFINITY, 0);
        labels[at] = search.best;
    }
}
