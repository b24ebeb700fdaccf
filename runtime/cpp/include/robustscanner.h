/* RobustScanner's C API: reads cropped words, for C and whatever can call C.
 *
 *     #include <robustscanner.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         robustscanner_options options = {.size = sizeof options, .threads = 2};
 *         robustscanner_recognizer *recognizer;
 *         robustscanner_readings *readings;
 *         const char *paths[] = {"sign.png", "door.jpg"};
 *
 *         if (robustscanner_open("word.engine", &options, &recognizer) != ROBUSTSCANNER_OK) {
 *             fprintf(stderr, "error: %s\n", robustscanner_error());
 *             return 1;
 *         }
 *         if (robustscanner_read_files(recognizer, paths, 2, &readings) == ROBUSTSCANNER_OK) {
 *             for (size_t i = 0; i < robustscanner_count(readings); ++i) {
 *                 const char *problem = robustscanner_problem(readings, i);
 *                 if (problem) fprintf(stderr, "error: %s\n", problem);
 *                 else printf("%s\t%.4f\n", robustscanner_text(readings, i), robustscanner_score(readings, i));
 *             }
 *             robustscanner_free(readings);
 *         } else {
 *             fprintf(stderr, "error: %s\n", robustscanner_error());
 *         }
 *         robustscanner_close(recognizer);
 *     }
 *
 * Threads: any number may read with one recognizer at once; ONNX Runtime runs them side by side, a TensorRT engine one
 * after another. A recognizer may be closed, and readings freed, by any thread, once no other uses them. Each thread
 * has its own error text.
 *
 * Texts are UTF-8. Paths are bytes, as the system has them. Null where a pointer is needed gives an error, no crash.
 */
#ifndef ROBUSTSCANNER_H
#define ROBUSTSCANNER_H

#include <stddef.h>
#include <stdint.h>

#include "robustscanner/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum robustscanner_status {
    ROBUSTSCANNER_OK = 0,
    ROBUSTSCANNER_BAD_ARGUMENT = 1, /* null, or a number that cannot be */
    ROBUSTSCANNER_BAD_ENGINE = 2,   /* the engine cannot be used here, failed, or cannot heed a constraint */
    ROBUSTSCANNER_FAILED = 3,       /* anything else: out of memory, for one */
    ROBUSTSCANNER_BAD_PICTURE = 4   /* of calls for one picture */
} robustscanner_status;

/* Fields that are 0 are as they are by default. New fields come at the end. */
typedef struct robustscanner_options {
    size_t size;             /* sizeof(robustscanner_options): tells versions of this structure apart */
    int32_t batch_size;      /* the most pictures of one run; default 16 */
    int32_t threads;         /* of the CPU, that share one run; default: all cores that are free to use */
    int32_t no_spinning;     /* 1: idle threads sleep, which spares a shared CPU and costs latency */
    int32_t device;          /* GPU of a TensorRT engine */
    int32_t no_cuda_graphs;  /* 1: launch every step anew; of TensorRT engines */
    int32_t allow_host_code; /* 1: a version-compatible plan may run the code it carries; only if you trust it */
    /* What texts may be; kept by no one after robustscanner_open. Null or 0: anything. */
    const char* characters;   /* "0-9A-F", as inside a regular expression's brackets */
    const char* pattern;      /* a regular expression for the whole text: classes, groups, alternatives, repeats */
    int32_t fewest, most;     /* characters of a text */
    const char* const* words; /* instead of all that: the best of these, as they are written */
    size_t word_count;
} robustscanner_options;

typedef enum robustscanner_channels {
    ROBUSTSCANNER_RGB = 0,
    ROBUSTSCANNER_BGR = 1, /* as OpenCV reads pictures */
    ROBUSTSCANNER_GREY = 2
} robustscanner_channels;

/* Pixels of yours, 8 bits a channel; they are not kept. */
typedef struct robustscanner_picture {
    const uint8_t* pixels;
    int32_t height, width;
    int32_t channels; /* a robustscanner_channels */
    size_t row_bytes; /* from one row to the next; 0: rows follow one another without a gap */
} robustscanner_picture;

/* A picture file in memory of yours; it is not kept. */
typedef struct robustscanner_file {
    const uint8_t* data;
    size_t size_bytes;
} robustscanner_file;

/* One letter of a text. Texts live as long as the letters. */
typedef struct robustscanner_letter {
    const char* text;
    double probability;            /* 0…1, after the letters before it */
    const char* others[2];         /* the two next most likely; null: there is none */
    double other_probabilities[2]; /* of what is left, what the model gives them */
    int32_t has_place;             /* 0: the model has no CTC, or sees too few columns for the letters */
    double left, centre, right;    /* pixels of the picture, from its left */
} robustscanner_letter;

typedef struct robustscanner_recognizer robustscanner_recognizer;
typedef struct robustscanner_letters robustscanner_letters;   /* of one text */
typedef struct robustscanner_readings robustscanner_readings; /* what some pictures say */

/* Opens NAME.engine or NAME.onnx; null: the shipped model. `options` may be null. Close what you get. */
ROBUSTSCANNER_EXPORT robustscanner_status robustscanner_open(const char* engine, const robustscanner_options* options,
                                                             robustscanner_recognizer** recognizer);

/* Null is fine. */
ROBUSTSCANNER_EXPORT void robustscanner_close(robustscanner_recognizer* recognizer);

/* Read any number of pictures. A bad picture has its `robustscanner_problem` and does not stop the others, nor change
 * the status. Free what you get. */
ROBUSTSCANNER_EXPORT robustscanner_status robustscanner_read_files(const robustscanner_recognizer* recognizer,
                                                                   const char* const* paths, size_t count,
                                                                   robustscanner_readings** readings);
ROBUSTSCANNER_EXPORT robustscanner_status robustscanner_read_encoded(const robustscanner_recognizer* recognizer,
                                                                     const robustscanner_file* files, size_t count,
                                                                     robustscanner_readings** readings);
ROBUSTSCANNER_EXPORT robustscanner_status robustscanner_read_pictures(const robustscanner_recognizer* recognizer,
                                                                      const robustscanner_picture* pictures,
                                                                      size_t count, robustscanner_readings** readings);

/* Of picture `index`, in the order in which they were given. Texts live as long as the readings. */
ROBUSTSCANNER_EXPORT size_t robustscanner_count(const robustscanner_readings* readings);
ROBUSTSCANNER_EXPORT const char* robustscanner_text(const robustscanner_readings* readings, size_t index); /* or "" */
ROBUSTSCANNER_EXPORT double robustscanner_score(const robustscanner_readings* readings, size_t index);     /* 0…1 */
ROBUSTSCANNER_EXPORT const char* robustscanner_problem(const robustscanner_readings* readings,
                                                       size_t index); /* null: it was read */

/* Null is fine. */
ROBUSTSCANNER_EXPORT void robustscanner_free(robustscanner_readings* readings);

/* Where each letter of a text stands in a picture, and what else it might be: another run of the engine, in which the
 * text is fixed, a reading's own or any other. A picture that cannot be read is ROBUSTSCANNER_BAD_PICTURE; engines that
 * do not know letters, and texts that the model cannot write, are ROBUSTSCANNER_BAD_ENGINE. Free what you get. */
ROBUSTSCANNER_EXPORT robustscanner_status robustscanner_letters_in_file(const robustscanner_recognizer* recognizer,
                                                                        const char* path, const char* text,
                                                                        robustscanner_letters** letters);
ROBUSTSCANNER_EXPORT robustscanner_status robustscanner_letters_in_encoded(const robustscanner_recognizer* recognizer,
                                                                           const robustscanner_file* file,
                                                                           const char* text,
                                                                           robustscanner_letters** letters);
ROBUSTSCANNER_EXPORT robustscanner_status robustscanner_letters_in_picture(const robustscanner_recognizer* recognizer,
                                                                           const robustscanner_picture* picture,
                                                                           const char* text,
                                                                           robustscanner_letters** letters);
ROBUSTSCANNER_EXPORT size_t robustscanner_letter_count(const robustscanner_letters* letters);
ROBUSTSCANNER_EXPORT const robustscanner_letter* robustscanner_letter_at(const robustscanner_letters* letters,
                                                                         size_t index); /* null: there is none */
/* Null is fine. */
ROBUSTSCANNER_EXPORT void robustscanner_free_letters(robustscanner_letters* letters);

/* What went wrong in this thread's latest call that did not return ROBUSTSCANNER_OK: one line, cause and cure. It lives
 * until the thread's next such call. */
ROBUSTSCANNER_EXPORT const char* robustscanner_error(void);

/* For example "0.1.0". */
ROBUSTSCANNER_EXPORT const char* robustscanner_version(void);

#ifdef __cplusplus
}
#endif

#endif
