// What the programs share.
#include <getopt.h>
#include <gtest/gtest.h>

#include <clocale>

#include "arguments.hpp"
#include "files.hpp"
#include "table.hpp"

namespace programs {
namespace {

struct Given {
    std::string output;
    int device = 0;
    bool force = false;
    std::vector<std::string> rest;
};

Given given(std::vector<std::string> texts) {
    texts.insert(texts.begin(), "program");
    std::vector<char*> pointers;
    for (auto& text : texts) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    Given result;
    optind = 0;  // getopt_long begins anew
    opterr = 0;
    result.rest = read_arguments(static_cast<int>(texts.size()), pointers.data(),
                                 {{"output", 'o', true, [&](auto text) { result.output = text; }},
                                  {"force", 'f', false, [&](auto) { result.force = true; }},
                                  {"device", 0, true, [&](auto text) { result.device = number(text, -5, 5); }}});
    return result;
}

TEST(Arguments, ComeInAnyOrder) {
    const auto all = given({"a", "-fo", "out", "b", "--device=-1", "-", "--", "-f"});
    EXPECT_EQ(all.rest, (std::vector<std::string>{"a", "b", "-", "-f"}));
    EXPECT_EQ(all.output, "out");
    EXPECT_EQ(all.device, -1);
    EXPECT_TRUE(all.force);
    EXPECT_FALSE(given({"a"}).force);
    EXPECT_EQ(given({"-oout", "--device", "2", "a"}).device, 2);
    for (const char* wrong : {"--out=x", "-x", "--force=1", "-o", "--output", "--device=6", "--device=1x", "--none"}) {
        EXPECT_THROW(given({"a", wrong}), UsageError) << wrong;
    }
    EXPECT_THROW(given({"-f"}), UsageError);
}

TEST(Files, AreSortedNaturally) {
    std::setlocale(LC_CTYPE, "C.UTF-8");
    EXPECT_TRUE(naturally_before("a2", "a!1"));  // a number ends the text before it
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
