#include "rometrace/text/json_file.hpp"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::json_file_test {
namespace {

using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

std::string complaint(std::string_view text, RepeatedNames repeated = RepeatedNames::kLastCounts) {
  return message_of<Error>([&] { parse_json(text, "x.json", repeated); });
}

TEST_CASE("a JSON value comes back as it was written") {
  const std::string text = R"({"a":[1,-2,0.5,true,null,"\u00e9\n"],"b":{},"c":[[],[{"d":18446744073709551615}]]})";
  CHECK(parse_json(text, "x") == nlohmann::json::parse(text));
  CHECK(parse_json(" 3 ", "x") == 3);
}

TEST_CASE("an error in JSON is placed by line and column, columns in characters") {
  CHECK(complaint("{\"a\": 1,\n \"é\": x}") == Contains("x.json: line 2, column 7: not JSON: "));
  CHECK(complaint("") == Contains("x.json: line 1, column 1: not JSON: unexpected end of input"));
  CHECK(complaint("[1, 2") == Contains("line 1, column 6: not JSON: unexpected end of input"));
  CHECK(complaint("[1] 2") == Contains("line 1, column 5: not JSON: "));
  CHECK(complaint("[\"\xff\"]") == Contains("line 1, column 3: not JSON: invalid string: ill-formed UTF-8 byte"));
  CHECK(complaint("[1e999]") == Contains("not JSON: number overflow"));
  CHECK(complaint(std::string_view("[1]\0x", 5)) == Contains("line 1, column 4: not JSON: a zero byte"));
  CHECK(complaint("[NaN]") == Contains("line 1, column 2: not JSON: "));
}

TEST_CASE("a message about hostile JSON is short and on one line") {
  const std::string message = complaint("[\"" + std::string(1'000'000, 'x') + "\n\x1b[31m\"]");
  CHECK(message.size() < 400);
  CHECK(testing::is_one_line(message));
}

TEST_CASE("a million open brackets are refused, not run into") {
  CHECK(complaint(std::string(1'000'000, '[')) == Contains("nested deeper than 256 levels"));
  std::string objects;
  for (int i = 0; i < 1000; ++i) objects += "{\"a\":";
  CHECK(complaint(objects) == Contains("nested deeper than 256 levels"));
  CHECK_NOTHROW(parse_json(std::string(256, '[') + std::string(256, ']'), "x"));
}

TEST_CASE("of one member of an object, the others are checked but not built") {
  const std::string text = R"({"a":[{"b":1}],"b":{"a":{"c":[2]},"b":[]},"c":3})";
  CHECK(parse_json_member(text, "x", "a") == nlohmann::json::parse(R"([{"b":1}])"));
  CHECK(parse_json_member(text, "x", "b") == nlohmann::json::parse(R"({"a":{"c":[2]},"b":[]})"));
  CHECK(parse_json_member(text, "x", "c") == 3);
  CHECK(parse_json_member(text, "x", "d") == nullptr);
  CHECK(parse_json_member("{}", "x", "d") == nullptr);
  const auto complaint_about = [](const std::string& file) {
    return message_of<Error>([&] { parse_json_member(file, "x.json", "b"); });
  };
  CHECK(complaint_about("{\"a\": 1,\n \"c\": x}") == Contains("x.json: line 2, column 7: not JSON: "));
  CHECK(complaint_about("{\"a\":" + std::string(60'000, '[')) == Contains("nested deeper than 256 levels"));
  CHECK(complaint_about("{\"b\":" + std::string(60'000, '[')) == Contains("nested deeper than 256 levels"));
  CHECK(complaint_about("[{\"b\":1}]") == Contains("x.json: found [{\"b\":1}]; expected an object"));
}

TEST_CASE("of a name that repeats in one object the last counts, or it is refused") {
  CHECK(parse_json(R"({"a":{"b":1},"a":2})", "x") == nlohmann::json{{"a", 2}});
  CHECK(complaint(R"({"a":1,"b":{"c":1,"c":2}})", RepeatedNames::kRefuse) ==
        Contains("the name \"c\" appears twice in one object"));
  CHECK_NOTHROW(parse_json(R"({"a":{"a":1},"b":{"a":1}})", "x", RepeatedNames::kRefuse));
}

TEST_CASE("a file that cannot be read is named with the reason") {
  const TemporaryFolder folder;
  const auto read = [&](const std::filesystem::path& name) {
    return message_of<Error>([&] { read_text_file(folder.path() / name); });
  };
  CHECK(read("none") == (folder.path() / "none").string() + ": no such file");
  CHECK(read(".") == Contains(": is a folder; expected a file"));
  folder.write("empty", "");
  CHECK(read("empty") == Contains("empty: is empty"));
  std::filesystem::create_symlink("nowhere", folder.path() / "link");
  CHECK(read("link") == Contains("link: is a link to a file that is missing"));
  CHECK(read(std::string("a\0b", 3)) == Contains("a\\x00b: no such file"));
  CHECK(read(std::string(5000, 'x')) == Contains("cannot be opened: "));
  folder.write("bad.json", "{\n");
  CHECK(message_of<Error>([&] { parse_json_file(folder.path() / "bad.json"); }) ==
        Contains("bad.json: line 2, column 1: not JSON: "));
}

TEST_CASE("a file is read whole, whatever its length, and a pipe too") {
  const TemporaryFolder folder;
  for (const std::size_t size : {1U, 65'535U, 65'536U, 65'537U, 200'000U}) {
    std::string text(size, 'a');
    text.back() = '\0';
    CHECK(read_text_file(folder.write("file", text)) == text);
  }
  const auto pipe = folder.path() / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const std::string text(300'000, 'p');
  std::thread writer([&] { std::ofstream(pipe, std::ios::binary) << text; });
  CHECK(read_text_file(pipe, FileKind::kReadable) == text);
  writer.join();
}

TEST_CASE("a pipe or a device in the place of a regular file is refused at once") {
  const TemporaryFolder folder;
  const auto pipe = folder.path() / "pipe.json";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const auto read = [](const std::filesystem::path& file) { return message_of<Error>([&] { parse_json_file(file); }); };
  CHECK(read(pipe) == Contains("pipe.json: is not a regular file but a pipe; save"));
  std::filesystem::create_symlink("/dev/zero", folder.path() / "zero.json");
  CHECK(read(folder.path() / "zero.json") == Contains("zero.json: is not a regular file but a device; save"));
}

TEST_CASE("text for a message keeps to one line, shows what it escapes and says where it is cut") {
  CHECK(one_line("plain é 日本 😀") == "plain é 日本 😀");
  CHECK(one_line("a\nb\tc\rd\x1b[0m\x7f") == "a\\nb\\tc\\rd\\x1b[0m\\x7f");
  CHECK(one_line("\xc2\x9b \xe2\x80\xae") == "\\xc2\\x9b \\xe2\\x80\\xae");  // terminal control, right-to-left override
  CHECK(one_line("\xff\xfe"
                 "a"
                 "\xe6\x97\xa5\xe6") == "\\xff\\xfea日\\xe6");
  CHECK(one_line("\xff \xc0\xaf \xed\xa0\x80 \xf0\x9f\x98") == "\\xff \\xc0\\xaf \\xed\\xa0\\x80 \\xf0\\x9f\\x98");
  CHECK(one_line("abcdef", 6) == "abcdef");
  CHECK(one_line("abcdef", 5) == "abcde…");
  CHECK(one_line("日本", 4) == "日…");
  CHECK(in_quotes("say \"hi\"") == "\"say \\\"hi\\\"\"");
}

}  // namespace
}  // namespace rometrace::json_file_test
