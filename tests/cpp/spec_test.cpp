// What a model is, and what is wrong with one.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "robustscanner/charset.hpp"
#include "robustscanner/errors.hpp"
#include "robustscanner/spec.hpp"
#include "sha256.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

Json good() {
    return Json::parse(R"({"format": 1, "name": "m",
        "charset": {"tokens": ["a", "ß", "<UKN>", "<BOS/EOS>", "<PAD>"], "start_id": 3, "end_id": 3, "pad_id": 4,
                    "unknown_id": 2, "class_count": 4},
        "input": {"height_px": 48, "width_px": 160, "min_width_px": 48, "width_multiple_px": 4, "resize": "linear",
                  "mean": 127.5, "scale": 127.5},
        "network": {"backbone": "edge", "hidden_size": 16, "max_length": 12, "widths": []}})");
}

std::string complaint(const std::function<void(Json&)>& change) {
    auto data = good();
    change(data);
    try {
        ModelSpec::from_json(data.dump());
    } catch (const SpecError& error) {
        return error.what();
    }
    return "";
}

TEST(Spec, IsNotWalkedToItsEndWhenTooDeep) {
    const std::string text = "{\"format\": " + std::string(300'000, '[') + std::string(300'000, ']') + "}";
    try {
        ModelSpec::from_json(text);
        FAIL();
    } catch (const SpecError& error) {
        EXPECT_STREQ(error.what(), "spec: not JSON (nested too deeply)");
    }
}

TEST(Spec, IsRead) {
    const auto spec = ModelSpec::from_json(good().dump());
    EXPECT_EQ(spec.charset.tokens[1], "ß");
    EXPECT_EQ(spec.charset.unknown_id, 2);
    EXPECT_EQ(spec.input.width_rule, "ratio");  // the first files lack it
    EXPECT_EQ(spec.network.max_length, 12);
    EXPECT_EQ(spec.input.canvas_step_px, 0);
    EXPECT_EQ(spec.input.canvas_margin_px, 0);
    EXPECT_TRUE(spec.network.blocks.empty());
    EXPECT_EQ(spec.network.row_mixer, "lstm");
    EXPECT_EQ(spec.network.ctc_weight, 0);
    auto other = good();
    other["input"]["width_rule"] = "scale";
    EXPECT_TRUE(spec == ModelSpec::from_json(good().dump()));
    EXPECT_TRUE(spec != ModelSpec::from_json(other.dump()));
}

Json open_width() {
    auto data = good();
    data["input"].update({{"width_px", 320}, {"canvas_step_px", 32}, {"canvas_margin_px", 16}});
    data["network"].update({{"backbone", "small"}, {"blocks", {2, 2, 1}}, {"row_mixer", "conv"}, {"ctc_weight", 0.25}});
    data["network"]["score_temperature"] = 0.5;
    return data;
}

TEST(Spec, OfSmallIsRead) {
    const auto spec = ModelSpec::from_json(open_width().dump());
    EXPECT_EQ(spec.input.canvas_step_px, 32);
    EXPECT_EQ(spec.input.canvas_margin_px, 16);
    EXPECT_EQ(spec.network.backbone, "small");
    EXPECT_EQ(spec.network.blocks, (std::vector<int>{2, 2, 1}));
    EXPECT_EQ(spec.network.row_mixer, "conv");
    EXPECT_EQ(spec.network.ctc_weight, 0.25);
    EXPECT_EQ(spec.network.score_temperature, 0.5);
    for (const auto& [part, change] : {std::pair<const char*, Json>{"input", {{"canvas_step_px", 16}}},
                                       {"input", {{"canvas_margin_px", 8}}},
                                       {"network", {{"blocks", {3, 2, 1}}}},
                                       {"network", {{"row_mixer", "lstm"}}},
                                       {"network", {{"ctc_weight", 0.5}}}}) {
        auto other = open_width();
        other[part].update(change);
        EXPECT_TRUE(spec != ModelSpec::from_json(other.dump())) << change;
    }
}

TEST(Spec, CanvasesAreAsWideAsTheirWord) {
    auto input = ModelSpec::from_json(open_width().dump()).input;
    EXPECT_EQ(input.canvas_width(48), 64);  // with the margin 64
    EXPECT_EQ(input.canvas_width(52), 96);
    EXPECT_EQ(input.canvas_width(304), 320);
    EXPECT_EQ(input.canvas_width(320), 320);
    input.canvas_margin_px = std::numeric_limits<int>::max();
    EXPECT_EQ(input.canvas_width(48), 320);
    input.canvas_step_px = 0;
    EXPECT_EQ(input.canvas_width(48), 320);
}

TEST(Spec, SaysWhatIsWrong) {
    EXPECT_EQ(complaint([](Json& d) { d["format"] = "2"; }),
              "spec: format \"2\"; this version reads format 1: update the kit");
    EXPECT_EQ(complaint([](Json& d) { d.erase("charset"); }), "charset: missing or not a JSON object");
    EXPECT_EQ(complaint([](Json& d) { d["x"] = 1; }), "spec: missing [], unknown [\"x\"]");
    EXPECT_EQ(complaint([](Json& d) { d["input"].erase("mean"), d["input"]["y"] = 1; }),
              "input: missing [\"mean\"], unknown [\"y\"]");
    EXPECT_EQ(complaint([](Json& d) { d["network"]["max_length"] = true; }),
              "network: max_length is true, which is not of the kind this field takes");
    EXPECT_EQ(complaint([](Json& d) { d["charset"]["tokens"][1] = "a"; }),
              "charset: \"a\" appears more than once; every token needs one id");
    EXPECT_EQ(complaint([](Json& d) { d["charset"]["tokens"][0] = "ab"; }),
              "charset: \"ab\" is not a single character and not a special token");
    EXPECT_EQ(complaint([](Json& d) { d["charset"]["pad_id"] = 9; }), "charset: pad_id 9 is outside the 5 tokens");
    EXPECT_EQ(complaint([](Json& d) { d["charset"]["class_count"] = 3; }), "charset: class_count 3 must be in 4…5");
    EXPECT_EQ(complaint([](Json& d) { d["input"]["scale"] = 0; }), "input: scale 0.0 must be positive");
    EXPECT_NE(complaint([](Json& d) { d["input"]["height_px"] = 1000000; }).find("canvas"), std::string::npos);
    EXPECT_EQ(complaint([](Json& d) { d["input"]["canvas_margin_px"] = -1; }),
              "input: canvas_step_px and canvas_margin_px must not be negative");
    for (const int step : {6, 48, 200}) {  // no multiple of 4, no divisor of 160, too wide
        EXPECT_EQ(complaint([step](Json& d) { d["input"]["canvas_step_px"] = step; }),
                  "input: canvas_step_px must be a multiple of width_multiple_px and divide width_px");
    }
    EXPECT_EQ(complaint([](Json& d) { d["network"]["backbone"] = "large"; }),
              "network: backbone \"large\" is none of r31, edge and small");
    for (const auto& change : {Json{{"backbone", "edge"}, {"blocks", {1, 1, 1}}},
                               Json{{"backbone", "small"}, {"blocks", {0, 1, 1}}},
                               Json{{"backbone", "small"}, {"blocks", {1, 1}}}}) {
        EXPECT_EQ(complaint([&](Json& d) { d["network"].update(change); }),
                  "network: blocks are three counts of 1 or more, and of the small backbone only");
    }
    EXPECT_EQ(complaint([](Json& d) { d["network"]["row_mixer"] = "gru"; }),
              "network: row_mixer \"gru\" is neither lstm nor conv");
    EXPECT_EQ(complaint([](Json& d) { d["network"]["ctc_weight"] = 1.5; }),
              "network: ctc_weight 1.5 is not within 0 and 1");
    EXPECT_EQ(complaint([](Json& d) { d["network"]["score_temperature"] = 0; }),
              "network: score_temperature 0.0 must be positive");
    EXPECT_THROW(ModelSpec::from_json("{"), SpecError);
    EXPECT_THROW(ModelSpec::from_json("[]"), SpecError);
}

TEST(Charset, DecodesUpToTheEnd) {
    const Charset charset(ModelSpec::from_json(good().dump()).charset);
    const std::int32_t ended[] = {1, 2, 0, 3, 0}, endless[] = {0, 4, 1};
    const float scores[] = {0.5f, 0.5f, 1, 0.5f, 0.1f};
    EXPECT_EQ(charset.decode(ended, scores, 5).text, "ß<UKN>a");
    EXPECT_DOUBLE_EQ(charset.decode(ended, scores, 5).score, 0.125);  // the end token counts, what follows does not
    EXPECT_EQ(charset.decode(endless, scores, 3).text, "aß");
}

TEST(Wording, ShowsValuesAsJson) {
    EXPECT_EQ(shown(Json::parse(R"([null, 1.0, {"k": "it's\n"}])")), R"([null,1.0,{"k":"it's\n"}])");
    EXPECT_EQ(shown(std::string(500, 'a')), "\"" + std::string(199, 'a') + "…");
    EXPECT_EQ(characters("aß\xff€").size(), 4u);
    EXPECT_EQ(characters("\xed\xa0\x80").size(), 3u);  // a surrogate is no UTF-8
}

TEST(Sha256, OfTheStandard) {
    const auto hash = [](const std::string& text) {
        Sha256 sha256;
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
        for (std::size_t at = 0; at < text.size(); at += 50)
            sha256.update(bytes + at, std::min<std::size_t>(50, text.size() - at));
        return sha256.finish();
    };
    EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(hash(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace robustscanner
