#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "facts/facts_checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"

namespace rometrace::facts_refusals_test {
namespace {

using testing::bad_at;
using testing::Contains;
using testing::count_bad;
using testing::fact_at;
using testing::is_one_line;
using testing::message_of;
using testing::read_text_as_facts;
using testing::TemporaryFolder;

TEST_CASE("a record that cannot be used is named and the others are read") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("b")", "facts, record 2: expected an object with a \"subject\", found \"b\""},
      {R"({"known_id": 16, "prompt": "a"})", "facts, record 2 (known_id 16): has no \"subject\""},
      {R"({"subject": null, "prompt": "a"})", "facts, record 2: has no \"subject\""},
      {R"({"id": "x", "subject": 3})", "facts, record 2 (id \"x\"): subject is 3; expected a string"},
      {R"({"case_id": 5, "subject": ""})", "record 2 (case_id 5): subject is empty"},
      {R"({"subject": " \n", "prompt": "a"})", "record 2: subject is empty"},
      {R"({"subject": "a\u0000", "prompt": "a"})", "subject holds a zero byte: \"a\\x00\""},
      {R"({"subject": "Miles", "prompt": "He plays the"})",
       "record 2: subject \"Miles\" is not in the prompt \"He plays the\"; check its spelling"},
      {R"({"subject": "miles", "prompt": "Miles plays the"})", "subject \"miles\" is not in the prompt"},
      {R"({"subject": "Miles Davis", "prompt": "Miles\u00a0Davis plays the"})",
       "there is \"Miles\u00a0Davis\", whose code point 6 is U+00A0 NO-BREAK SPACE, not U+0020 SPACE; check its "
       "spelling, or put {}"},
      {R"({"subject": "a", "prompt": ""})", "record 2: prompt is empty"},
      {R"({"subject": "a", "prompt": ["a"]})", "record 2: prompt is [\"a\"]; expected a string"},
      {R"({"subject": "a", "prompt": "{} and {} a"})",
       "record 2: prompt \"{} and {} a\" has {} 2 times; expected it once"},
      {R"({"subject": "a"})", "record 2: has no \"prompt\" and no \"relation\""},
      {R"({"subject": "a", "relation": "r"})",
       "record 2: has no \"prompt\", and its relation \"r\" is not defined in the file"},
      {R"({"subject": "a", "prompt": "a", "relation": 3})", "record 2: relation is 3; expected a string"},
      {R"({"subject": "a", "prompt": "a", "relation_id": ""})", "record 2: relation_id is empty"},
      {R"({"subject": "a", "prompt": "a", "object": " "})", "record 2: object is empty"},
      {R"({"subject": "a", "prompt": "a", "attribute": 1809})", "record 2: attribute is 1809; expected a string"},
      {R"({"subject": "a", "prompt": "a", "id": 1.5})", "record 2: id is 1.5; expected a whole number or a text"},
      {R"({"subject": "a", "prompt": "a", "id": ""})", "record 2: id is \"\"; expected"},
      {R"({"subject": "a", "prompt": "a", "id": true})", "record 2: id is true; expected"},
      {R"({"subject": "a", "prompt": "a", "rephrase_prompt": 3})", "rephrase_prompt has 3; expected strings"},
      {R"({"subject": "a", "prompt": "a", "paraphrase_prompts": ["a", null]})",
       "paraphrase_prompts has null; expected strings"},
      {R"({"requested_rewrite": "x"})", "record 2: requested_rewrite is \"x\"; expected an object"},
      {R"({"case_id": 1, "requested_rewrite": {"prompt": "{} is"}})", "record 2 (case_id 1): has no \"subject\""},
      {R"({"requested_rewrite": {"subject": "a", "prompt": "{} is", "target_true": {"id": "Q1"}}})",
       "record 2: target_true has no \"str\""},
      {R"({"samples": []})", "record 2: name is null; expected the relation's name"},
      {R"({"name": "r", "samples": []})", "record 2: has no samples"},
      {R"({"name": "r", "samples": 3})", "record 2: samples is 3; expected a list"},
      {R"({"name": "r", "prompt_templates": ["{} is"], "samples": ["a"]})",
       "record 2, sample 1: expected an object with a \"subject\", found \"a\""},
      {R"({"name": "r", "prompt_templates": ["{} is"], "samples": [{"subject": "a", "object": ""}]})",
       "record 2, sample 1: object is empty"},
      {R"({"name": "r", "prompt_templates": ["is"], "samples": [{"subject": "a"}]})",
       "record 2, sample 1: relation \"r\": prompt_templates 1 \"is\" has {} 0 times; expected it once"},
      {R"({"name": "r", "prompt_templates_zs": "is", "samples": [{"subject": "a"}]})",
       "relation \"r\": prompt_templates_zs is \"is\"; expected a list"},
      {R"({"name": "r", "prompt_templates": [], "samples": [{"subject": "a"}]})", "relation \"r\" has no wordings"},
  };
  for (const auto& [record, expected] : cases) {
    CAPTURE(record);
    const std::string good = R"({"subject": "good", "prompt": "good is"})";
    const Facts facts = read_text_as_facts("[" + good + "," + record + "," + good + "]");
    REQUIRE(facts.records.size() == 3);
    const BadRecord& bad = bad_at(facts, 1);
    CHECK(bad.message == Contains(expected));
    CHECK(bad.message == Contains(bad.where));
    CHECK(is_one_line(bad.message));
    CHECK(bad.record == 2);
    CHECK(fact_at(facts, 2).record == 3);
  }
}

TEST_CASE("a bad record keeps the id that it gives") {
  const Facts facts = read_text_as_facts(
      R"([{"known_id": 16, "subject": ""}, {"id": "x", "subject": ""}, {"subject": ""}, {"id": [], "subject": ""}])");
  CHECK(bad_at(facts, 0).id == "16");
  CHECK(bad_at(facts, 0).id_is_number);
  CHECK(bad_at(facts, 1).id == "x");
  CHECK_FALSE(bad_at(facts, 1).id_is_number);
  CHECK_FALSE(bad_at(facts, 2).id.has_value());
  CHECK_FALSE(bad_at(facts, 3).id.has_value());
}

TEST_CASE("what is wrong with a relation is said of each record that needs it and of no other") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"3", "relation \"r\" is 3; expected an object with \"wordings\""},
      {"{}", "relation \"r\" has no wordings"},
      {"[]", "relation \"r\" has no wordings"},
      {R"({"wordings": {}})", "relation \"r\": wordings is {}; expected a list"},
      {R"(["{} a", "b"])", "relation \"r\": wording 2 \"b\" has {} 0 times; expected it once, where the subject goes"},
      {R"({"wordings": [{"text": "{} and {}"}]})", "wording 1 \"{} and {}\" has {} 2 times"},
      {R"({"wordings": [{"held_out": true}]})", "wording 1 is null; expected a string with {}"},
      {R"({"wordings": [{"text": "{} a", "held_out": 1}]})", "held_out of wording 1 is 1; expected true or false"},
  };
  for (const auto& [relation, expected] : cases) {
    CAPTURE(relation);
    const Facts facts = read_text_as_facts(R"({"relations": {"r": )" + relation + R"(, "s": ["{} is"]}, "facts": [
        {"subject": "A", "relation": "r"}, {"subject": "A", "relation": "s"}]})");
    CHECK(bad_at(facts, 0).message == Contains("facts, record 1: relation \"r\""));
    CHECK(bad_at(facts, 0).message == Contains(expected));
    CHECK(is_one_line(bad_at(facts, 0).message));
    CHECK(fact_at(facts, 1).relation == "s");
  }
}

TEST_CASE("a bad line of CSV is named and the others are read") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"1,A,x", "facts, line 3: has 3 cells; the header has 4"},
      {"1,A,x,A is,more", "facts, line 3: has 5 cells; the header has 4"},
      {"1,,x,A is", "facts, line 3 (id 1): subject is empty"},
      {"1,A, ,A is", "facts, line 3 (id 1): object is empty"},
      {"1,A,x,", "facts, line 3 (id 1): has no \"prompt\" and no \"relation\""},
      {"1,A,x,B is", "subject \"A\" is not in the prompt \"B is\""},
      {"1,A,x,{} is {}", "has {} 2 times"},
      {"1,A,x,A \"is\"", "facts, line 3: cell 4 has a quote where none may stand"},
      {"1,A,x,\"A is", "facts, line 3: cell 4 has a quote where none may stand"},  // closed by the next line's
      {"1,\"A,x,\"\"A is", "facts, line 3: cell 2 "},
      {"1,A,x,A \xFF", "facts, line 3: prompt is not UTF-8: \"A \\xff\""},
      {std::string("1,A,x,A\0 is", 11), "prompt holds a zero byte: \"A\\x00 is\""},
  };
  for (const auto& [line, expected] : cases) {
    CAPTURE(line);
    const Facts facts = read_text_as_facts("id,subject,object,prompt\n0,A,x,A is\n" + line + "\n2,\"B\",x,\"B is\"\n");
    REQUIRE(facts.records.size() == 3);
    CHECK(bad_at(facts, 1).message == Contains(expected));
    CHECK(bad_at(facts, 1).where == Contains("facts, line 3"));
    CHECK(is_one_line(bad_at(facts, 1).message));
    CHECK(fact_at(facts, 2).id == "2");
  }
}

TEST_CASE("a quote that stays open to the end costs one line only") {
  const Facts facts = read_text_as_facts("subject,prompt\nA,\"A is\nB,B is\nC,C is\n");
  REQUIRE(facts.records.size() == 3);
  CHECK(bad_at(facts, 0).message == Contains("line 2: cell 2 opens with a quote that is never closed"));
  CHECK(fact_at(facts, 1).subject == "B");
}

TEST_CASE("a file that cannot be read as facts is refused in one line") {
  const std::string understood = "; expected facts: known_1000.json of ROME, CounterFact";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "facts: is empty"},
      {" \n\t", "facts: is empty"},
      {"\xEF\xBB\xBF", "facts: is empty"},
      {std::string("\xFF\xFE[\0", 4), "facts: is UTF-16; expected UTF-8"},
      {"3", "facts: found a first line of \"3\"" + understood},
      {"null", "facts: found a first line of \"null\""},
      {"some text\nmore", "facts: found a first line of \"some text\""},
      {std::string("\x1f\x8b\x08\0\0", 5), "facts: its gzip is cut short; get the file again"},
      {"a,b\n1,2\n", "facts: found a first line of \"a,b\""},
      {std::string("s\0u\0b\0j\0e\0c\0t\0", 14), "facts: is UTF-16LE; expected UTF-8"},
      {"{}", "facts: found {}" + understood},
      {R"({"a": 1, "b": 2})", "facts: found an object with \"a\", \"b\"" + understood},
      {R"({"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1})", "\"f\", ...;"},
      {"[1, 2]", "facts: found a list that begins with 1" + understood},
      {R"([{"x": 1}])", "facts: found a list that begins with an object with \"x\"" + understood},
      {"{\"x\": 1}\n{\"x\": 2}\n", "facts: found lines of JSON that begin with an object with \"x\"" + understood},
      {"[]", "facts: has no records"},
      {R"({"facts": []})", "facts: has no records"},
      {R"({"facts": {}})", "facts: facts is {}; expected a list of records"},
      {R"({"facts": [], "relations": []})", "facts: relations is []; expected an object"},
      {R"({"schema": "rometrace/facts/1"})", "facts: has no \"facts\""},
      {R"({"schema": "rometrace/facts/2", "facts": [{"subject": "a"}]})",
       "schema is \"rometrace/facts/2\"; this version reads \"rometrace/facts/1\""},
      {"{\"schema\": \"rometrace/batch/1\"}\n{\"subject\": \"a\"}\n",
       "facts, line 1: schema is \"rometrace/batch/1\"; this version reads"},
      {"{\"schema\": \"rometrace/trace/1\", \"subject\": \"a\", \"prompt\": \"a\"}\n{}\n",
       "facts, line 1: schema is \"rometrace/trace/1\"; this version reads"},
      {"{\"schema\": \"rometrace/facts/1\", \"relations\": {}}\n \n\n{\"schema\": \"rometrace/facts/1\"}",
       "facts: has no records"},
      {R"({"name": "r", "samples": []})", "facts: has no samples"},
      {R"({"samples": [{"subject": "a"}]})", "facts: name is null; expected the relation's name"},
      {"subject,prompt\n", "facts: has no records"},
      {"subject,object\nA,b\n", "facts: the header names \"subject\" but no \"prompt\" and no \"relation\""},
      {"subject,prompt,Prompt\nA,b,c\n", "facts: the header names \"prompt\" twice"},
      {"\"subject,prompt\nA,b\n", "facts: found a first line of"},
      {R"([{"subject": "a"},])", "facts: line 1, column 19: not JSON"},
      {"{\"facts\": [\n{\"subject\": }\n]}", "facts: line 2, column 13: not JSON"},
      {"[{\"subject\": \"\xFF\"}]", "facts: line 1, column 15: not JSON"},
      {std::string("[{\"a\0\": 1}]", 11), "facts: line 1, column 5: not JSON: a zero byte"},
      {std::string(100'000, '['), "facts: nested deeper than 256 levels"},
      {"{\"facts\": " + std::string(100'000, '['), "facts: nested deeper than 256 levels"},
      {std::string(std::size_t{1} << 24U, 'x'), "facts: found a first line of \"xxx"},
      {"\"" + std::string(std::size_t{1} << 24U, '"'), "facts: found a first line of"},
  };
  for (const auto& [content, expected] : cases) {
    const std::string shown = content.substr(0, 100);
    CAPTURE(shown);
    const std::string message = message_of<Error>([&content = content] { read_text_as_facts(content); });
    CHECK(message == Contains(expected));
    CHECK(is_one_line(message));
    CHECK(message.size() < 800);
  }
}

TEST_CASE("files that are missing or not named are refused") {
  const std::vector<std::filesystem::path> none;
  CHECK(message_of<Error>([&] { read_facts(none); }) == Contains("no facts file is named"));
  const TemporaryFolder folder;
  const std::vector<std::filesystem::path> missing{folder.path() / "none.json"};
  CHECK(message_of<Error>([&] { read_facts(missing); }) == Contains("none.json: no such file"));
}

TEST_CASE("a line of JSON that nests too deeply is one bad record") {
  const Facts facts =
      read_text_as_facts("{\"subject\": \"A\", \"prompt\": \"A is\"}\n{\"a\": " + std::string(9999, '[') + "\n");
  CHECK(count_bad(facts) == 1);
  CHECK(bad_at(facts, 1).message == Contains("facts, line 2: nested deeper than 256 levels"));
}

TEST_CASE("a subject that cannot be used ends the reading of subjects") {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"([{"subject": "a"}, "b"])", "facts.json, record 2: expected an object with a \"subject\", found \"b\""},
      {R"([{"known_id": 16, "prompt": "a"}])", "facts.json, record 1 (known_id 16): has no \"subject\""},
      {R"([{"id": "x", "subject": 3}])", "facts.json, record 1 (id \"x\"): subject is 3; expected a string"},
      {R"({"facts": [{"subject": "a"}, {"case_id": 5, "subject": ""}]})", "record 2 (case_id 5): subject is empty"},
      {R"({"name": "r", "samples": [{"subject": "a"}, {}]})", "facts.json, record 2: has no \"subject\""},
      {"subject,prompt\na,b\nc\n", "facts.json, line 3: has 1 cells; the header has 2"},
      {"{\"subject\": \"a\"}\n{\"subject\": \n", "facts.json, line 2, column 13: not JSON"},
      {R"([{"subject": "a"},])", "facts.json: line 1, column 19: not JSON"},
      {"[]", "facts.json: has no records"},
      {"3", "facts.json: found a first line of \"3\""},
  };
  for (const auto& [content, expected] : cases) {
    CAPTURE(content);
    const TemporaryFolder folder;
    const auto file = folder.write("facts.json", content);
    const std::string message = message_of<Error>([&] { read_subjects(file); });
    CHECK(message == Contains(expected));
    CHECK(is_one_line(message));
  }
}

}  // namespace
}  // namespace rometrace::facts_refusals_test
