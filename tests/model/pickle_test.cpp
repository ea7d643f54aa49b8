#include "model/pickle.hpp"

#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "torch_bytes.hpp"

namespace rometrace::pickle_test {
namespace {

using testing::Contains;
using testing::message_of;
using testing::number_bytes;
using testing::pickled::entry;
using testing::pickled::global;
using testing::pickled::number;
using testing::pickled::text;

bool is_known(std::string_view module, std::string_view name) {
  return (module == "known" && name == "Class") || (module == "collections" && name == "OrderedDict");
}

Pickle read(const std::string& bytes) {
  return Pickle::read(std::as_bytes(std::span(bytes)), "p", is_known);
}

std::string refusal(const std::string& bytes) {
  std::string message = message_of<Error>([&] { read(bytes); });
  CHECK(testing::is_one_line(message));
  return message;
}

TEST_CASE("numbers, texts and bytes of every width are read") {
  const std::vector<std::pair<std::string, std::int64_t>> numbers = {
      {"K\xff", 255},
      {"M\xff\xff", 65535},
      {"J\xff\xff\xff\xff", -1},
      {"J\x01\x02\x03\x04", 0x04030201},
      {std::string("\x8a\x00", 2), 0},
      {"\x8a\x01\xff", -1},
      {std::string("\x8a\x02\xff\x00", 4), 255},
      {"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", 0x7fffffffffffffff},
      {"\x8b" + number_bytes(1, 4) + "\x80", -128},
  };
  for (const auto& [bytes, expected] : numbers) {
    CAPTURE(expected);
    const std::string file = bytes + ".";
    const Pickle pickle = read(file);
    const bool is_integer = pickle.root().kind == PickleKind::kInteger;
    CHECK(is_integer);
    CHECK(pickle.root().integer == expected);
    CHECK(pickle.length() == file.size());
  }
  for (const std::string& head :
       {std::string("U\x03"), std::string("\x8c\x03"), "T" + number_bytes(3, 4), "X" + number_bytes(3, 4),
        "\x8d" + number_bytes(3, 8), std::string("C\x03"), "B" + number_bytes(3, 4), "\x8e" + number_bytes(3, 8)}) {
    const std::string file = head + "abc.";
    CHECK(read(file).root().text == "abc");
  }
  const std::string large = "\x8a\x09" + std::string(9, '\x01') + ".";
  const bool is_large = read(large).root().kind == PickleKind::kLargeInteger;
  CHECK(is_large);
}

TEST_CASE("containers hold what was put into them, by all opcodes and through the memo") {
  // [1, (2, 3), {"k": 4}, 1]: the 1 is memorised by each opcode in turn, and what follows the end is not looked at.
  for (const std::string& put : {std::string("q\x05"), "r" + number_bytes(5, 4)}) {
    for (const std::string& get : {std::string("h\x05"), "j" + number_bytes(5, 4)}) {
      const std::string file = "\x80\x02](K\x01" + put + "K\x02K\x03\x86" + entry(text("k"), "K\x04") + get + "e.rest";
      const Pickle pickle = read(file);
      const PickleValue& root = pickle.root();
      REQUIRE(root.items.size() == 4);
      CHECK(root.items[0] == root.items[3]);
      CHECK(root.items[1]->items[1]->integer == 3);
      CHECK(root.items[2]->items[0]->text == "k");
      CHECK(root.items[2]->items[1]->integer == 4);
      CHECK(pickle.length() == file.size() - 4);
    }
  }
  const std::string framed = "\x80\x04\x95" + number_bytes(9, 8) + "](K\x01\x94K\x02h\x00" + "e.";
  const std::string file = framed.substr(0, framed.size() - 2) + std::string(1, '\0') + "e.";
  CHECK(read(file).root().items.size() == 3);
}

TEST_CASE("an OrderedDict is a dictionary, as Python 2 and Python 3 write it, and its attributes are left out") {
  const std::string ordered_dict = global("collections", "OrderedDict");
  const std::string three = ordered_dict + ")R" + text("k") + "K\x01s" + entry(text("_metadata"), "]") + "b.";
  const std::string two = ordered_dict + "((]" + text("k") + "aK\x01" + "alt" + "tR.";
  const Pickle pickle = read(three);
  REQUIRE(pickle.root().items.size() == 2);
  CHECK(pickle.root().items[0]->text == "k");
  // Python 2: OrderedDict([["k", 1]])
  const std::string pairs = ordered_dict + "(](" + "](" + text("k") + "K\x01" + "e" + "etR.";
  CHECK(read(pairs).root().items.size() == 2);
  CHECK(refusal(ordered_dict + "K\x01\x85R.") == Contains("makes a collections.OrderedDict from a tuple of 1"));
  CHECK(refusal(ordered_dict + "(](K\x01" + "etR.") == Contains("OrderedDict with the number 1; expected pairs"));
  CHECK(refusal(two) == Contains("opcode 0x6c (LIST)"));
}

TEST_CASE("whatever could run a program is refused by name, and nothing is run") {
  const std::vector<std::pair<std::string, const char*>> cases = {
      {global("os", "system") + text("touch x") + "\x85R.", "byte 0: refers to \"os.system\", which is no part of"},
      {global("posix", "system") + ")R.", "refers to \"posix.system\""},
      {global("builtins", "eval") + text("1") + "\x85R.", "refers to \"builtins.eval\""},
      {global("__builtin__", "getattr") + ")R.", "refers to \"__builtin__.getattr\""},
      {global("known", "Class.method") + ")R.", "refers to \"known.Class.method\""},
      {global("known.Class", "") + ")R.", "refers to \"known.Class.\""},
      {global("", "") + ".", "refers to \".\""},
      {"c\x1b[31m\nx\n.", "refers to \"\\x1b[31m.x\""},
      {text("os") + text("system") + "\x93)R.", "refers to \"os.system\", which is no part of"},
      {text("os") + "K\x01\x93.", "refers to the text \"os\" and the number 1"},
      {"(ios\nsystem\n.", "opcode 0x69 (INST) is not one that a file of tensors needs; nothing was run"},
      {"(" + global("known", "Class") + "o.", "opcode 0x6f (OBJ)"},
      {global("known", "Class") + ")\x81.", "opcode 0x81 (NEWOBJ)"},
      {global("known", "Class") + ")}\x92.", "opcode 0x92 (NEWOBJ_EX)"},
      {"\x82\x01.", "opcode 0x82 (EXT1)"},
      {"\x97.", "opcode 0x97 (NEXT_BUFFER)"},
      {"\x8f.", "opcode 0x8f (EMPTY_SET)"},
      {"P1\n.", "opcode 0x50 (PERSID)"},
      {"\xff.", "opcode 0xff is not one"},
      {text("os.system") + ")R.", "calls the text \"os.system\" with a tuple of 0; nothing was run"},
      {global("known", "Class") + ")R)R.", "calls a call of known.Class with a tuple of 0"},
      {global("known", "Class") + "]R.", "calls known.Class with a list"},
      {global("known", "Class") + ")R}b.", "gives a call of known.Class attributes from a dictionary"},
      {"}]b.", "gives a dictionary attributes from a list"},
  };
  for (const auto& [bytes, expected] : cases) {
    CAPTURE(expected);
    CHECK(refusal(bytes) == Contains(expected));
  }
}

TEST_CASE("a program that goes wrong is refused with its place") {
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"", "byte 0: cut short"},
      {".", "byte 0: takes a value where none is left"},
      {"0.", "takes a value where none is left"},
      {"2.", "takes a value where none is left"},
      {"K\x01(0.", "byte 3: takes a value where none is left"},
      {"t.", "looks for a mark where none is left"},
      {"K\x01\x86.", "takes a value where none is left"},
      {"h\x01.", "asks for value 1, which was not memorised"},
      {"q\x01.", "takes a value where none is left"},
      {"K\x01K\x02" + std::string("a."), "adds to the number 1; expected a list or a dictionary"},
      {"]K\x01K\x02s.", "adds to a list"},
      {"}(K\x01u.", "adds a key without a value"},
      {"\x80\x01.", "is of protocol 1; expected 2 to 5"},
      {"\x80\x06.", "is of protocol 6; expected 2 to 5"},
      {"X\xff\xff\xff\xff" + std::string("abc."), "byte 0: cut short"},
      {"\x8d" + std::string(8, '\xff') + "abc.", "byte 0: cut short"},
      {"\x8e" + std::string(8, '\xff') + "abc.", "byte 0: cut short"},
      {"\x8b\xff\xff\xff\xff" + std::string("abc."), "byte 0: cut short"},
      {"\x95" + std::string(8, '\xff') + "N.", "cut short"},
      {"cos", "cut short"},
      {"cos\nsystem", "cut short"},
      {"K\x01", "byte 2: cut short"},
  };
  for (const auto& [bytes, expected] : cases) {
    CAPTURE(bytes);
    CHECK(refusal(bytes) == Contains(expected));
  }
}

TEST_CASE("values nested without end and values that hold themselves are read and let go") {
  std::string deep(100'000, ']');
  deep += std::string(99'999, 'a') + ".";
  CHECK(read(deep).root().items.size() == 1);
  std::string tuples = ")" + std::string(1'000'000, '\x85') + ".";
  CHECK(read(tuples).root().items.size() == 1);
  const std::string itself = std::string("]q\x01h\x01", 5) + "a.";
  const Pickle pickle = read(itself);
  CHECK(pickle.root().items.front() == &pickle.root());
}

TEST_CASE("a pickle that would grow without end is refused") {
  CHECK(refusal(std::string(3'000'000, 'N') + ".") == Contains("has more than 2097152 values"));
  CHECK(refusal("N" + std::string(3'000'000, '2') + ".") == Contains("puts more than 2097152 values on its stack"));
  CHECK(refusal(std::string(3'000'000, '(') + ".") == Contains("has more than 2097152 marks"));
  std::string steps = "N";
  for (int i = 0; i < 9'000'000; ++i) steps += "20";
  CHECK(refusal(steps + ".") == Contains("has more than 16777216 opcodes"));
  // A list of 20,000 pairs, of which 20,000 dictionaries are made: 200 KB that would take 6 GB.
  std::string pairs = "](NN\x86q\x01";
  for (int i = 1; i < 20'000; ++i) pairs += "h\x01";
  pairs += "eq\x02" + global("collections", "OrderedDict") + "q\x03";
  for (int i = 0; i < 20'000; ++i) pairs += "h\x03h\x02\x85R";
  CHECK(refusal(pairs + ".") == Contains("puts more than 16777216 values into its lists and dictionaries"));
  // Each list holds the one before it twice: a tree of 2^60 leaves, which nobody may walk.
  std::string bomb = "](NNe";
  for (int i = 0; i < 60; ++i) bomb += "q\x01](h\x01h\x01" + std::string("e");
  const std::string file = bomb + ".";
  CHECK(read(file).root().items.size() == 2);
}

TEST_CASE("every beginning of a pickle is refused") {
  const std::string file = "\x80\x02" + entry(text("k"), global("known", "Class") + "(" + number(5) + "tR") + ".";
  CHECK(read(file).root().items.size() == 2);
  for (std::size_t length = 0; length < file.size(); ++length) {
    CAPTURE(length);
    CHECK(refusal(file.substr(0, length)) == Contains("cut short"));
  }
}

}  // namespace
}  // namespace rometrace::pickle_test
