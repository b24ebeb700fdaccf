// What the programs share.
#include <gtest/gtest.h>

#include "arguments.hpp"
#include "files.hpp"
#include "pattern.hpp"
#include "table.hpp"

namespace programs {
namespace {

const std::vector<OptionSpec> known = {{"--output", 'o', true}, {"--force", 'f', false}, {"--device", 0, true}};

Arguments parsed(std::vector<const char*> texts) {
    texts.insert(texts.begin(), "program");
    return {static_cast<int>(texts.size()), texts.data(), known};
}

TEST(Arguments, ComeInAnyOrder) {
    const auto given = parsed({"a", "-fo", "out", "b", "--device=-1", "-", "--", "-f"});
    EXPECT_EQ(given.rest(), (std::vector<std::string>{"a", "b", "-", "-f"}));
    EXPECT_TRUE(given.has("--force"));
    EXPECT_EQ(given.text("--output", ""), "out");
    EXPECT_EQ(given.number("--device", 0, -5, 5), -1);
    EXPECT_EQ(parsed({"-oout"}).text("--output", ""), "out");
    EXPECT_THROW(given.number("--device", 0, 0, 5), UsageError);
    for (const char* wrong : {"--out", "-x", "--force=1", "-o", "--output"}) EXPECT_THROW(parsed({wrong}), UsageError);
}

TEST(Pattern, MatchesAsPythonsDoes) {
    for (const auto& [name, pattern] : std::vector<std::pair<const char*, const char*>>{{"a.png", "*.png"},
                                                                                        {"aß", "a?"},
                                                                                        {"b", "[abc]"},
                                                                                        {"d", "[!abc]"},
                                                                                        {"]", "[]]"},
                                                                                        {"[x", "[x"},
                                                                                        {"q", "[a-z]"},
                                                                                        {"a-b-c", "*-*"},
                                                                                        {"", "*"},
                                                                                        {"abcbc", "a*bc"}}) {
        EXPECT_TRUE(name_matches(name, pattern)) << name << " " << pattern;
    }
    for (const auto& [name, pattern] : std::vector<std::pair<const char*, const char*>>{
             {"a.pngx", "*.png"}, {"b", "[!abc]"}, {"A", "[a-z]"}, {"", "?"}, {"x", "[]"}}) {
        EXPECT_FALSE(name_matches(name, pattern)) << name << " " << pattern;
    }
}

TEST(Files, AreSortedNaturally) {
    EXPECT_TRUE(naturally_before("w9.png", "w10.png"));
    EXPECT_TRUE(naturally_before("W9.png", "w10.png"));
    EXPECT_TRUE(naturally_before("Äa1", "äb1"));
    EXPECT_TRUE(naturally_before("w", "w1"));
    EXPECT_FALSE(naturally_before("w01", "w1"));
    EXPECT_FALSE(naturally_before("w1", "w01"));
}

TEST(Table, EscapesWhatWouldBreakIt) {
    EXPECT_EQ(line(Format::tsv, "a\tb\xff", {"x\n", 0.5}), "a\\tb\\udcff\tx\\n\t0.5000\n");
    EXPECT_EQ(line(Format::json, "\"\x01", {"ß", 0.12}),
              "{\"path\": \"\\\"\\u0001\", \"text\": \"ß\", \"score\": 0.12}\n");
    EXPECT_EQ(line(Format::json, "p", {"", 1}), "{\"path\": \"p\", \"text\": \"\", \"score\": 1.0}\n");
    EXPECT_EQ(line(Format::csv, "a,b", {"say \"x\"", 0}), "\"a,b\",\"say \"\"x\"\"\",0.0000\n");
    EXPECT_EQ(header(Format::csv), "path,text,score\n");
}

}  // namespace
}  // namespace programs
