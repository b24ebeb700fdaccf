// Words of a picture that lies on the GPU, drawn onto canvases as robustscanner/preprocess.py draws them on the CPU: one
// thread for one pixel of a canvas. Needs nothing newer than CUDA 11.4 and C++17; a C++ compiler makes the CPU's version
// of the same code, for tests.
#ifdef __CUDACC__
#define RS_PIXEL __device__ inline
#else
#include <cmath>
#include <cstdint>
#define RS_PIXEL inline
#endif

namespace {

struct Picture {
    const unsigned char* pixels;
    long long row_bytes, column_bytes, channel_bytes;  // from one to the next; negative where an axis is turned round
    int height, width;
};

// A word, as the host describes it: where the pixels of its upright rectangle lie in the picture.
struct Word {
    double matrix[9];   // (column, row, 1) of the rectangle -> homogeneous (x, y, w) of the picture
    int width, height;  // of the rectangle
    int valid;          // columns of the canvas that it fills
    int is_upright;     // 1: the matrix only moves, by whole pixels
};

RS_PIXEL int clamp(int value, int high) { return value < 0 ? 0 : value > high ? high : value; }

RS_PIXEL float pixel(const Picture& picture, int x, int y, int channel) {
    const long long column = clamp(x, picture.width - 1), row = clamp(y, picture.height - 1);
    return picture.pixels[row * picture.row_bytes + column * picture.column_bytes + channel * picture.channel_bytes];
}

// A pixel of the word's rectangle: as it stands, or between four of a word that does not stand upright.
RS_PIXEL float sample(const Picture& picture, const Word& word, int column, int row, int channel) {
    const double* m = word.matrix;
    if (word.is_upright) return pixel(picture, column + static_cast<int>(m[2]), row + static_cast<int>(m[5]), channel);
    const double w = m[6] * column + m[7] * row + m[8];
    const double x = (m[0] * column + m[1] * row + m[2]) / w, y = (m[3] * column + m[4] * row + m[5]) / w;
    const int left = static_cast<int>(floor(x)), top = static_cast<int>(floor(y));
    const float right = static_cast<float>(x - left), down = static_cast<float>(y - top);
    const float above = pixel(picture, left, top, channel) * (1 - right) + pixel(picture, left + 1, top, channel) * right;
    const float below =
        pixel(picture, left, top + 1, channel) * (1 - right) + pixel(picture, left + 1, top + 1, channel) * right;
    return above * (1 - down) + below * down;
}

// The two pixels that a pixel of the canvas lies between, along one axis, and how near it is to the second.
struct Between {
    int first, second;
    float share;
};

// Source: OpenCV's resize, INTER_LINEAR; `cells` as INTER_AREA does where an axis grows.
RS_PIXEL Between between(int at, int length, int drawn, bool cells) {
    const double scale = static_cast<double>(length) / drawn;
    double place = (at + 0.5) * scale - 0.5;
    int first = static_cast<int>(floor(place));
    float share = static_cast<float>(place - first);
    if (cells) {
        first = static_cast<int>(floor(at * scale));
        const float over = static_cast<float>((at + 1) - (first + 1) / scale);
        share = over <= 0 ? 0 : over - floorf(over);
    }
    if (first < 0) return {0, 0, 0};
    if (first >= length - 1) return {length - 1, length - 1, 0};
    return {first, first + 1, share};
}

// How much of a source pixel lies within the stretch that a pixel of the canvas averages.
RS_PIXEL double covered(int source, double begin, double end) {
    const double from = source > begin ? source : begin, to = source + 1 < end ? source + 1 : end;
    return to > from ? to - from : 0;
}

// Source: OpenCV's resize, INTER_AREA where both axes shrink.
RS_PIXEL float average(const Picture& picture, const Word& word, int x, int y, int canvas_height, int channel) {
    const double across = static_cast<double>(word.width) / word.valid;
    const double down = static_cast<double>(word.height) / canvas_height;
    const double left = x * across, right = left + across < word.width ? left + across : word.width;
    const double top = y * down, bottom = top + down < word.height ? top + down : word.height;
    double sum = 0;
    for (int row = static_cast<int>(top); row < bottom; row++) {
        double line = 0;
        for (int column = static_cast<int>(left); column < right; column++)
            line += covered(column, left, right) * sample(picture, word, column, row, channel);
        sum += covered(row, top, bottom) * line;
    }
    return static_cast<float>(sum / ((right - left) * (bottom - top)));
}

RS_PIXEL unsigned char draw(const Picture& picture, const Word& word, int x, int y, int canvas_height, bool area,
                            int channel) {
    const bool shrinks = word.height > canvas_height || word.width > word.valid;
    float value;
    if (area && word.width >= word.valid && word.height >= canvas_height) {
        value = average(picture, word, x, y, canvas_height, channel);
    } else {
        const Between h = between(x, word.width, word.valid, area && shrinks);
        const Between v = between(y, word.height, canvas_height, area && shrinks);
        const float above = sample(picture, word, h.first, v.first, channel) * (1 - h.share) +
                            sample(picture, word, h.second, v.first, channel) * h.share;
        const float below = sample(picture, word, h.first, v.second, channel) * (1 - h.share) +
                            sample(picture, word, h.second, v.second, channel) * h.share;
        value = above * (1 - v.share) + below * v.share;
    }
    return static_cast<unsigned char>(value + 0.5f);
}

// One pixel of one canvas; those of canvases without a word of their own repeat the last word.
RS_PIXEL void draw_pixel(const Picture& picture, const Word* words, int count, unsigned char* canvases, int* valid_width,
                         int canvas_height, int canvas_width, int area, int x, int y, int canvas) {
    if (x >= canvas_width || y >= canvas_height) return;
    const Word& word = words[canvas < count ? canvas : count - 1];
    unsigned char* target = canvases + ((static_cast<long long>(canvas) * canvas_height + y) * canvas_width + x) * 3;
    for (int channel = 0; channel < 3; channel++)
        target[channel] = x < word.valid ? draw(picture, word, x, y, canvas_height, area != 0, channel) : 0;
    if (x == 0 && y == 0) valid_width[canvas] = word.valid;
}

}  // namespace

#ifdef __CUDACC__
extern "C" __global__ void robustscanner_resize(const unsigned char* pixels, long long row_bytes, long long column_bytes,
                                                long long channel_bytes, int height, int width, const Word* words,
                                                int count, unsigned char* canvases, int* valid_width, int canvas_height,
                                                int canvas_width, int area) {
    const Picture picture{pixels, row_bytes, column_bytes, channel_bytes, height, width};
    draw_pixel(picture, words, count, canvases, valid_width, canvas_height, canvas_width, area,
               blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y, blockIdx.z);
}
#else
// The CPU in place of a GPU: grid (3), block (3) and shared bytes, then the parameters; addresses are `offset` too high.
extern "C" void robustscanner_resize(const unsigned* shape, const std::uint64_t* values) {
    const auto number = [&](int index) { return static_cast<long long>(values[index]); };
    const auto small = [&](int index) { return static_cast<int>(values[index]); };
    const auto place = [&](int index) { return values[index] - RS_DEVICE_OFFSET; };
    const Picture picture{reinterpret_cast<unsigned char*>(place(0)), number(1), number(2), number(3), small(4), small(5)};
    for (unsigned canvas = 0; canvas < shape[2]; canvas++)
        for (unsigned y = 0; y < shape[1] * shape[4]; y++)
            for (unsigned x = 0; x < shape[0] * shape[3]; x++)
                draw_pixel(picture, reinterpret_cast<const Word*>(place(6)), small(7),
                           reinterpret_cast<unsigned char*>(place(8)), reinterpret_cast<int*>(place(9)), small(10),
                           small(11), small(12), static_cast<int>(x), static_cast<int>(y), static_cast<int>(canvas));
}
#endif
