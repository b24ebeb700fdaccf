// Reading, whole.
#include "robustscanner/recognizer.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace robustscanner {
namespace {

SessionOptions one_thread() {
    SessionOptions options;
    options.threads = 1;
    options.spinning = false;
    return options;
}

const std::string first = DEMO_PICTURES "/01.jpg", second = DEMO_PICTURES "/04.jpg";

TEST(Recognizer, ReadsWithTheShippedModel) {
    const Recognizer recognizer(default_engine(), one_thread());
    EXPECT_EQ(recognizer.read(first).text, "EXIT");
    EXPECT_EQ(recognizer.read(load_image(second).view()).text, "Harbour");
    EXPECT_GT(recognizer.read(first).score, 0.9);
}

TEST(Recognizer, ReadsAroundBadPictures) {
    const Recognizer recognizer(TINY_MODEL, one_thread(), 2);
    std::vector<std::string> texts;
    recognizer.read_each({first, std::string("none.png"), second, EncodedImage{}, first},
                         [&](std::size_t index, Outcome outcome) {
                             EXPECT_EQ(index, texts.size());
                             const auto* error = std::get_if<ImageError>(&outcome);
                             texts.push_back(error ? error->what() : std::get<Reading>(outcome).text);
                         });
    ASSERT_EQ(texts.size(), 5u);
    EXPECT_EQ(texts[0], texts[4]);
    EXPECT_NE(texts[0], texts[2]);
    EXPECT_EQ(texts[1], "none.png: No such file or directory; check the path and its permissions");
    EXPECT_EQ(texts[3], "empty file; copy or download it again");
    EXPECT_THROW(recognizer.read_batch({first, std::string("none.png")}), ImageError);
    EXPECT_TRUE(recognizer.read_batch({}).empty());
    EXPECT_THROW(Recognizer(TINY_MODEL, one_thread(), 0), EngineError);
}

TEST(Recognizer, HeedsConstraints) {
    Constraint letters, digits;
    letters.pattern = "[A-Z]{4}";
    digits.characters = "0-9";
    digits.fewest = 3;
    digits.most = 3;
    const Recognizer recognizer(default_engine(), one_thread(), 2, letters);
    EXPECT_EQ(recognizer.read(first).text, "EXIT");
    const auto forced = recognizer.read(first, digits);
    EXPECT_EQ(forced.text.find_first_not_of("0123456789"), std::string::npos);
    EXPECT_EQ(forced.text.size(), 3u);
    EXPECT_LT(forced.score, 0.2);
    Constraint backwards;
    backwards.pattern = "(a)\\1";
    EXPECT_THROW(recognizer.read(first, backwards), ConstraintError);
}

TEST(Recognizer, IsSharedByThreads) {
    const Recognizer recognizer(TINY_MODEL, one_thread());
    const auto expected = recognizer.read(first).text;
    std::vector<std::string> texts(10);
    std::vector<std::thread> threads;
    for (auto& text : texts) {
        threads.emplace_back([&] { text = recognizer.read(first).text; });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(texts, std::vector<std::string>(10, expected));
}

}  // namespace
}  // namespace robustscanner
