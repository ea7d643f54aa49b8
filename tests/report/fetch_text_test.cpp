#include "rometrace/report/fetch_text.hpp"

#include <algorithm>
#include <string>

#include "checks.hpp"
#include "files.hpp"
#include "report/widest_line.hpp"
#include "rometrace/report/models_text.hpp"
#include "rometrace/text/bytes_text.hpp"

namespace rometrace::fetch_text_test {
namespace {

using testing::Contains;
using testing::widest_line;

TEST_CASE("bytes are told in powers of a thousand, rounded down to a tenth") {
  CHECK(bytes_text(0) == "0 B");
  CHECK(bytes_text(999) == "999 B");
  CHECK(bytes_text(1000) == "1.0 kB");
  CHECK(bytes_text(548'105'171) == "548.1 MB");
  CHECK(bytes_text(999'999'999) == "999.9 MB");
  CHECK(bytes_text(6'200'000'000) == "6.2 GB");
  CHECK(bytes_text(~std::uint64_t{0}) == "18.4 EB");
}

TEST_CASE("the rate is of what was fetched now, the share of all that is there") {
  const FetchProgress progress{"model.safetensors", 300'000'000, 100'000'000, 500'000'000};
  CHECK(fetch_progress_text(progress, 10) ==
        "model.safetensors, 60 %: 300.0 MB of 500.0 MB, 20.0 MB a second, 0:10 left");
  CHECK(fetch_progress_text({"x", 5, 5, 10}, 1) == "x, 50 %: 5 B of 10 B");
  CHECK(fetch_progress_text({"x\x1b[31m", 0, 0, 0}, 0) == "x\\x1B[31m, 0 %: 0 B of 0 B");
}

TEST_CASE("a line of progress is narrower than the terminal, whatever its width") {
  const FetchProgress progress{"model.safetensors", 300'000'000, 100'000'000, 500'000'000};
  TerminalStyle style;
  for (const bool unicode : {true, false}) {
    style.unicode = unicode;
    for (style.columns = 1; style.columns < 140; ++style.columns) {
      CAPTURE(style.columns);
      CHECK(widest_line(render_fetch_progress(progress, 10, style)) < std::max(2, style.columns));
    }
  }
  CHECK(render_fetch_progress(progress, 10, style).starts_with("############-------- model.safetensors, 60 %"));
}

TEST_CASE("the table of models shows what can be traced, and says why something cannot") {
  CachedModel good{
      "openai-community/gpt2", std::string(40, 'a'), {"main", "v1"}, "/c/s", 548'105'171, "gpt2", 12, 768, {}};
  CachedModel bad{"org/t5\x1b", "bbbbbbbbb", {}, "/c/t", 7, "t5", 0, 0, "/c/t/config.json: model_type is \"t5\""};
  TerminalStyle style;
  style.columns = 86;
  CHECK(render_models({good, bad}, style) ==
        "model                  revision                size  family, layers x width  traceable\n"
        "openai-community/gpt2  main, v1 (aaaaaaa)  548.1 MB  gpt2, 12 x 768          yes\n"
        "org/t5\\x1B             bbbbbbbbb                7 B  t5                      no\n"
        "    not traceable: config.json: model_type is \"t5\"\n");
  CHECK(render_models({}, style).empty());

  style.columns = 60;
  CHECK(render_models({good, bad}, style) ==
        "model               revision       size  family,…  traceable\n"
        "openai-community/…  main, v1…  548.1 MB  gpt2, 1…  yes\n"
        "org/t5\\x1B          bbbbbbbbb       7 B  t5        no\n"
        "    not traceable: config.json: model_type is \"t5\"\n");
}

TEST_CASE("no line of the table of models is wider than the terminal, and what is cut is seen") {
  const std::string wide = "\xE6\x9D\xB1\xE4\xBA\xAC";
  const CachedModel model{"org/" + wide + std::string(60, 'n'),
                          std::string(40, 'a'),
                          {"main", std::string(50, 'r')},
                          "/c/s",
                          999'900'000'000,
                          "gpt_neox",
                          1000,
                          100'000,
                          "/c/s/config.json: no " + std::string(200, 'x') + " " + wide};
  const CachedModel plain{"gpt2", std::string(40, 'b'), {"main"}, "/c/t", 5, "gpt2", 12, 768, {}};
  for (const bool unicode : {true, false}) {
    for (const int columns : {1, 53, 54, 60, 80, 100, 200}) {
      CAPTURE(columns);
      TerminalStyle style;
      style.columns = columns;
      style.unicode = unicode;
      const auto text = render_models({model, plain}, style);
      CHECK(widest_line(text) <= std::max(54, columns));
      CHECK(text == Contains("\ngpt2 "));
      CHECK(text == Contains(unicode ? "…  " : "..  "));
    }
  }
}

}  // namespace
}  // namespace rometrace::fetch_text_test
