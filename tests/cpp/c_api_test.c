/* The C API as a C program sees it. Arguments: a model and two pictures. */
#include <pthread.h>
#include <robustscanner.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 10

#define CHECK(condition)                                                                                \
    do {                                                                                                \
        if (!(condition)) {                                                                             \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, robustscanner_error()); \
            exit(1);                                                                                    \
        }                                                                                               \
    } while (0)

static const char* model;
static const char* paths[3];
static char expected[2][64];

static robustscanner_recognizer* open_model(void) {
    robustscanner_options options = {.size = sizeof options, .threads = 1, .no_spinning = 1, .batch_size = 2};
    robustscanner_recognizer* recognizer = NULL;
    CHECK(robustscanner_open(model, &options, &recognizer) == ROBUSTSCANNER_OK);
    return recognizer;
}

static void check_readings(const robustscanner_recognizer* recognizer) {
    robustscanner_readings* readings = NULL;
    CHECK(robustscanner_read_files(recognizer, paths, 3, &readings) == ROBUSTSCANNER_OK);
    CHECK(robustscanner_count(readings) == 3);
    CHECK(strcmp(robustscanner_text(readings, 0), expected[0]) == 0);
    CHECK(strcmp(robustscanner_text(readings, 2), expected[1]) == 0);
    CHECK(robustscanner_score(readings, 0) > 0 && robustscanner_score(readings, 0) <= 1);
    CHECK(robustscanner_problem(readings, 0) == NULL);
    CHECK(strcmp(robustscanner_problem(readings, 1),
                 "none.png: No such file or directory; check the path and its permissions") == 0);
    CHECK(strcmp(robustscanner_text(readings, 1), "") == 0);
    robustscanner_free(readings);
}

static void test_letters(const robustscanner_recognizer* older) {
    robustscanner_recognizer* recognizer = NULL;
    robustscanner_letters* letters = NULL;
    char text[64] = "";
    CHECK(robustscanner_letters_in_file(older, paths[0], "a", &letters) == ROBUSTSCANNER_BAD_ENGINE);
    CHECK(letters == NULL && strstr(robustscanner_error(), "older than letters"));
    CHECK(robustscanner_open(NULL, NULL, &recognizer) == ROBUSTSCANNER_OK); /* the shipped model */
    CHECK(robustscanner_letters_in_file(recognizer, paths[0], "Abc.09", &letters) == ROBUSTSCANNER_OK);
    CHECK(robustscanner_letter_count(letters) > 0);
    for (size_t i = 0; i < robustscanner_letter_count(letters); ++i) {
        const robustscanner_letter* letter = robustscanner_letter_at(letters, i);
        strcat(text, letter->text);
        CHECK(letter->probability > 0 && letter->probability <= 1);
        CHECK(letter->others[0] && letter->others[1] && strcmp(letter->others[0], letter->text) != 0);
        CHECK(letter->other_probabilities[0] >= letter->other_probabilities[1]);
        CHECK(letter->has_place);
        CHECK(0 <= letter->left && letter->left <= letter->centre && letter->centre <= letter->right);
    }
    CHECK(strcmp(text, "Abc.09") == 0);
    CHECK(robustscanner_letter_at(letters, strlen(text)) == NULL);
    robustscanner_free_letters(letters);
    CHECK(robustscanner_letters_in_file(recognizer, "none.png", "a", &letters) == ROBUSTSCANNER_BAD_PICTURE);
    CHECK(letters == NULL && strstr(robustscanner_error(), "none.png: No such file") == robustscanner_error());
    CHECK(robustscanner_letters_in_file(recognizer, paths[0], "\xd0\x96", &letters) == ROBUSTSCANNER_BAD_ENGINE);
    CHECK(strstr(robustscanner_error(), "which this model does not read"));
    CHECK(robustscanner_letters_in_file(recognizer, NULL, "a", &letters) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_letters_in_encoded(recognizer, NULL, "a", &letters) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_letters_in_picture(recognizer, NULL, "a", &letters) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_letters_in_file(recognizer, paths[0], NULL, &letters) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_letters_in_file(NULL, paths[0], "a", &letters) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_letter_count(NULL) == 0);
    robustscanner_free_letters(NULL);
    robustscanner_close(recognizer);
}

static void* own_recognizer(void* unused) {
    robustscanner_recognizer* recognizer = open_model();
    (void)unused;
    check_readings(recognizer);
    robustscanner_close(recognizer);
    return NULL;
}

static void* shared_recognizer(void* recognizer) {
    check_readings(recognizer);
    return NULL;
}

static void run_threads(void* (*work)(void*), void* argument) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, work, argument) == 0);
    for (int i = 0; i < THREADS; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void* error_elsewhere(void* unused) {
    robustscanner_recognizer* recognizer = NULL;
    (void)unused;
    CHECK(strcmp(robustscanner_error(), "") == 0);
    CHECK(robustscanner_open("other.onnx", NULL, &recognizer) == ROBUSTSCANNER_BAD_ENGINE);
    return NULL;
}

static void test_errors(const robustscanner_recognizer* good) {
    robustscanner_recognizer* recognizer = NULL;
    robustscanner_readings* readings = NULL;
    robustscanner_options options = {.size = sizeof options, .threads = -1};
    const robustscanner_picture odd = {(const uint8_t*)"", 1, 1, 7, 0};
    CHECK(robustscanner_open("none.onnx", NULL, &recognizer) == ROBUSTSCANNER_BAD_ENGINE);
    CHECK(recognizer == NULL);
    CHECK(strstr(robustscanner_error(), "none.onnx: no such engine; ") == robustscanner_error());
    CHECK(robustscanner_open(model, &options, &recognizer) == ROBUSTSCANNER_BAD_ENGINE);
    CHECK(strcmp(robustscanner_error(), "threads is -1; give a number from 1 to 1024") == 0);
    options.size = 3;
    CHECK(robustscanner_open(model, &options, &recognizer) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_open(model, NULL, NULL) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_read_files(NULL, paths, 1, &readings) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_read_files(good, NULL, 1, &readings) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_read_files(good, paths, 1, NULL) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(robustscanner_read_pictures(good, &odd, 1, &readings) == ROBUSTSCANNER_BAD_ARGUMENT);
    CHECK(strstr(robustscanner_error(), "channels is no") != NULL);
    run_threads(error_elsewhere, NULL);
    CHECK(strstr(robustscanner_error(), "channels is no") != NULL);
    CHECK(robustscanner_problem(NULL, 0) != NULL);
    CHECK(robustscanner_count(NULL) == 0);
    robustscanner_close(NULL);
    robustscanner_free(NULL);
}

static void test_pixels_and_bytes(const robustscanner_recognizer* recognizer) {
    static uint8_t pixels[20 * 64 * 3];
    static uint8_t file[1 << 16];
    const robustscanner_picture pictures[2] = {{pixels, 20, 60, ROBUSTSCANNER_BGR, 64 * 3}, {NULL, 20, 60, 0, 0}};
    robustscanner_readings* readings = NULL;
    robustscanner_file encoded = {file, 0};
    FILE* stream = fopen(paths[0], "rb");
    CHECK(stream != NULL);
    encoded.size_bytes = fread(file, 1, sizeof file, stream);
    fclose(stream);
    CHECK(robustscanner_read_encoded(recognizer, &encoded, 1, &readings) == ROBUSTSCANNER_OK);
    CHECK(strcmp(robustscanner_text(readings, 0), expected[0]) == 0);
    robustscanner_free(readings);
    CHECK(robustscanner_read_pictures(recognizer, pictures, 2, &readings) == ROBUSTSCANNER_OK);
    CHECK(robustscanner_problem(readings, 0) == NULL);
    CHECK(strstr(robustscanner_problem(readings, 1), "not empty") != NULL);
    robustscanner_free(readings);
    CHECK(robustscanner_read_files(recognizer, NULL, 0, &readings) == ROBUSTSCANNER_OK);
    CHECK(robustscanner_count(readings) == 0);
    robustscanner_free(readings);
}

int main(int count, char** texts) {
    robustscanner_recognizer* recognizer;
    robustscanner_readings* readings = NULL;
    CHECK(count == 4);
    model = texts[1];
    paths[0] = texts[2], paths[1] = texts[3], paths[2] = texts[3];
    recognizer = open_model();
    CHECK(robustscanner_read_files(recognizer, paths, 2, &readings) == ROBUSTSCANNER_OK);
    for (size_t i = 0; i < 2; ++i) snprintf(expected[i], sizeof expected[i], "%s", robustscanner_text(readings, i));
    robustscanner_free(readings);
    CHECK(strcmp(expected[0], expected[1]) != 0);
    paths[1] = "none.png";
    test_errors(recognizer);
    test_pixels_and_bytes(recognizer);
    test_letters(recognizer);
    run_threads(own_recognizer, NULL);
    run_threads(shared_recognizer, recognizer);
    robustscanner_close(recognizer);
    return 0;
}
