#include "rometrace/report/terminal.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "checks.hpp"
#include "report/display_text.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Example {
  Trace trace;
  TracePrompt prompt;
  TokenTexts texts;

  std::string render(const TerminalStyle& style) const { return render_heat_maps(trace, prompt, texts, style); }
};

/// A prompt of these tokens; each grid is `base` but for one cell.
Example example(std::vector<std::string> tokens, std::int64_t layers, double base = 0.1) {
  Example result;
  auto& trace = result.trace;
  trace.tokens = static_cast<std::int64_t>(tokens.size());
  trace.layers = layers;
  trace.high_score = 0.9;
  trace.low_score = 0.1;
  trace.low_standard_error = 0.01;
  trace.prediction_score = 0.9;
  for (const auto kind : {Kind::kState, Kind::kMlp, Kind::kAttn}) {
    const auto cells = static_cast<std::size_t>(trace.tokens * layers);
    CausalGrid grid{kind, kind == Kind::kState ? 1 : 10, std::vector<double>(cells, base),
                    std::vector<double>(cells, 0.0)};
    trace.grids.push_back(grid);
  }
  for (const auto& token : tokens) {
    result.prompt.prompt += token;
  }
  result.prompt.token_ids.resize(tokens.size());
  result.prompt.subject_range = {0, std::min<std::size_t>(2, tokens.size())};
  result.texts = {std::move(tokens), " trumpet", " trumpet"};
  return result;
}

Example miles_davis() {
  auto result = example({"Miles", " Davis", " plays", " the"}, 4);
  result.trace.grids[0].scores[1 * 4 + 2] = 0.7;
  result.trace.grids[0].scores[3 * 4 + 3] = 0.9;
  result.trace.grids[1].scores[1 * 4 + 1] = 0.5;
  result.trace.grids[2].scores[3 * 4 + 3] = 0.3;
  return result;
}

std::string without_colors(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "\x1b[") != 0) {
      plain += text[i];
      continue;
    }
    i = text.find_first_not_of("0123456789;", i + 2);
    REQUIRE((i != std::string::npos && text[i] == 'm'));
  }
  return plain;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(line);
  }
  return lines;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// All that may not happen, whatever is shown in whatever style.
void check_sound(const std::string& text, const TerminalStyle& style) {
  const auto plain = without_colors(text);
  CHECK_FALSE(find_invalid_utf8(text));
  CHECK(text.ends_with('\n'));
  CHECK(std::none_of(plain.begin(), plain.end(), [](char c) { return (c >= 0 && c < ' ' && c != '\n') || c == 0x7F; }));
  if (!style.unicode) {
    CHECK(std::all_of(plain.begin(), plain.end(), [](char c) { return c >= 0; }));
  }
  if (!style.color) {
    CHECK(text == plain);
  }
  CHECK_FALSE(has(plain, "nan"));
  CHECK_FALSE(has(plain, "inf"));
  int widest = 0;
  for (const auto& line : lines_of(plain)) {
    widest = std::max(widest, columns_of(line));
  }
  CHECK(widest <= std::max(20, style.columns));
}

}  // namespace

TEST_CASE("few layers are shown as percentages with the findings below") {
  const auto text = miles_davis().render({.columns = 80, .color = false});
  CHECK(text ==
        "Probability of \" trumpet\" in percent when the subject (*) is corrupted and one\n"
        "thing is restored.\n"
        "\n"
        "state: the block's output restored at one layer\n"
        " Miles*   10   10   10   10\n"
        "·Davis*   10   10   70   10\n"
        "·plays    10   10   10   10\n"
        "  ·the    10   10   10   90\n"
        " layer     0    1    2    3\n"
        "        10 % corrupted, 90 % largest\n"
        "\n"
        "mlp: the MLP's output restored in 10 layers around each layer\n"
        " Miles*   10   10   10   10\n"
        "·Davis*   10   50   10   10\n"
        "·plays    10   10   10   10\n"
        "  ·the    10   10   10   10\n"
        " layer     0    1    2    3\n"
        "        10 % corrupted, 50 % largest\n"
        "\n"
        "attn: the attention's output restored in 10 layers around each layer\n"
        " Miles*   10   10   10   10\n"
        "·Davis*   10   10   10   10\n"
        "·plays    10   10   10   10\n"
        "  ·the    10   10   10   30\n"
        " layer     0    1    2    3\n"
        "        10 % corrupted, 30 % largest\n"
        "\n"
        "\"Miles Davis plays the\" -> \" trumpet\": probability 0.9 clean, 0.1 with the\n"
        "  subject corrupted: total effect 0.8.\n"
        "Strongest state before the last token: \" Davis\" (last subject token), layer 2:\n"
        "  brings back 0.6 (75 % of the total effect).\n"
        "Strongest mlp: \" Davis\" (last subject token), around layer 1: brings back 0.4\n"
        "  (50 % of the total effect).\n"
        "Strongest attn: \" the\" (last token), around layer 3: brings back 0.2 (25 % of\n"
        "  the total effect).\n");
}

TEST_CASE("colours change nothing but colours") {
  const auto with = without_colors(miles_davis().render({.columns = 80, .color = true, .true_color = true}));
  CHECK(has(with, "·Davis*   10   10   70   10 \n"));
  CHECK(has(miles_davis().render({.columns = 80, .true_color = true}), "48;2;"));
  CHECK_FALSE(has(miles_davis().render({.columns = 80, .true_color = false}), "48;2;"));
}

TEST_CASE("many layers are tenths of the range from low to the largest") {
  auto many = example({"A", "b", "c"}, 48);
  for (int layer = 0; layer < 48; ++layer) {
    many.trace.grids[0].scores[static_cast<std::size_t>(48 + layer)] = 0.1 + 0.8 * layer / 47.0;
  }
  many.trace.grids[0].scores[5] = 0.01;
  const auto text = many.render({.columns = 80, .color = false});
  CHECK(has(text, "     A* ................................................\n"));
  CHECK(has(text, "     b* .....1111122222333344444555556666777778888899999\n"));
  CHECK(has(text, ". is 0.1 corrupted, 9 is 0.9 largest"));
  CHECK(has(text, " layer  0    5    10   15   20   25   30   35   40   45\n"));
}

TEST_CASE("layers that do not fit are merged by their largest, and that is said") {
  auto many = example({"A", "b", "c"}, 48);
  many.trace.grids[0].scores[48 + 47] = 0.9;
  const auto text = many.render({.columns = 30, .color = false});
  CHECK(has(text, "Each column is the largest of\n3 layers."));
  CHECK(has(text, "     b* ...............9\n"));
  CHECK(has(text, " layer  0  10 20  30 40\n"));
}

TEST_CASE("numbers that do not exist are never printed as such") {
  auto broken = example({"A", "b", "c"}, 4, kNan);
  broken.trace.low_score = kNan;
  for (const int columns : {20, 30, 80}) {
    for (const bool color : {false, true}) {
      const TerminalStyle style{.columns = columns, .color = color};
      const auto text = broken.render(style);
      check_sound(text, style);
      CHECK(has(text, "?"));
    }
  }
  CHECK(has(broken.render({.columns = 100, .color = false}), "A probability is not a number"));
}

TEST_CASE("a corruption without effect is called one") {
  auto none = example({"A", "b", "c"}, 4);
  none.trace.high_score = 0.1;
  CHECK(has(none.render({.columns = 100, .color = false}), "does not lower the answer's probability"));
  none.trace.high_score = 0.104;
  CHECK(has(none.render({.columns = 100, .color = false}), "hardly lowers the answer's probability"));
  none.trace.high_score = 0.13;
  none.trace.low_standard_error = 0.02;
  CHECK(has(none.render({.columns = 100, .color = false}), "hardly lowers the answer's probability"));
  none.trace.low_standard_error = kNan;
  CHECK_FALSE(has(none.render({.columns = 100, .color = false}), "hardly"));
  CHECK(has(none.render({.columns = 100, .color = false}), "No mlp brings anything back."));
  CHECK(has(none.render({.columns = 100, .color = false}), "10 % corrupted, and no cell is above it"));
}

TEST_CASE("a target that is not the prediction is told beside it") {
  auto other = miles_davis();
  other.texts.prediction = " piano";
  other.trace.prediction_id = 1;
  CHECK(has(other.render({.columns = 100, .color = false}), "The model itself says \" piano\": probability 0.9."));
  CHECK_FALSE(has(miles_davis().render({.columns = 100, .color = false}), "itself"));
}

TEST_CASE("every width and style is sound, whatever the tokens are") {
  const std::vector<std::vector<std::string>> prompts = {
      {"A"},
      {"Miles", " Davis", " plays"},
      {"\x1b[31m", "\n\n\n\n\n\n\n\n\n\n\n\n", "\xE2", "\x80\xAE", "\xE6\x97\xA5\xE6\x9C\xAC", "e\xCC\x81", "\xCC\x81",
       std::string(300, 'x'), std::string(40, '\x01'), ""}};
  for (const auto& tokens : prompts) {
    for (const std::int64_t layers : {1, 2, 8, 12, 48, 1000}) {
      auto shown = example(tokens, layers);
      shown.trace.grids[0].scores.back() = 1.0;
      shown.texts.answer = tokens.back();
      for (const int columns : {-1, 0, 1, 19, 20, 21, 30, 41, 80, 200, 100000}) {
        for (const bool color : {false, true}) {
          for (const bool unicode : {false, true}) {
            CAPTURE(layers);
            CAPTURE(columns);
            const TerminalStyle style{.columns = columns, .color = color, .true_color = false, .unicode = unicode};
            check_sound(shown.render(style), style);
          }
        }
      }
    }
  }
}

TEST_CASE("progress fits its width and tells the time that is left") {
  const TerminalStyle wide{.columns = 80};
  CHECK(render_progress(0, 240, 0, wide).ends_with("░ 0 %"));
  CHECK(render_progress(60, 240, 4, wide) == "██████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░ 25 %, 0:12 left");
  CHECK(render_progress(1, 3601, 1, {.columns = 80, .unicode = false}) ==
        "---------------------------------------- 0 %, 1:00:00 left");
  CHECK(render_progress(240, 240, 4, wide).ends_with("█ 100 %"));
  CHECK(render_progress(31, 240, 2, {.columns = 20}) == "12 %, 0:14 left");
  CHECK(render_progress(0, 0, 0, wide).ends_with("0 %"));
  CHECK(render_progress(5, 10, kNan, wide).ends_with("50 %"));
  for (int columns = -1; columns < 90; ++columns) {
    CHECK(columns_of(render_progress(7, 1000, 1e9, {.columns = columns})) <= std::max(1, columns - 1));
  }
}

}  // namespace rometrace
