/* The layout of layout.py in numbers. */
#pragma once
#include "vectors.h"

enum { BLOCK = 32, INPUTS = 4, LINES = BLOCK / INPUTS, LINE = 64, LINE_OUTPUTS = LINE / INPUTS };
enum { NUMBERS = BLOCK * sizeof(f16), CODES4 = 2 * NUMBERS, CODES8 = NUMBERS };
enum { SQUARE4 = CODES4 + LINES * LINE, SQUARE8 = CODES8 + 2 * LINES * LINE };

/* What int8 codes had added. */
#define OFFSET8 128.0f
