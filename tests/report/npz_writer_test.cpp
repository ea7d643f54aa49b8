#include "report/npz_writer.hpp"

#include <ATen/Functions.h>

#include <array>
#include <string>
#include <vector>

#include "checks.hpp"
#include "edit/npz.hpp"
#include "files.hpp"
#include "model/zip.hpp"

namespace rometrace::npz_writer_test {
namespace {

using testing::TemporaryFolder;

TEST_CASE("numbers come back from our reader in their shapes") {
  NpzWriter writer;
  const std::vector<float> scores = {0, 0.5F, -1.25F, 3e-30F, 1e30F, 0.1F};
  const std::vector<double> lows = {0.1};
  const std::vector<std::int64_t> ids = {0, -1, std::int64_t{1} << 40U};
  writer.add("scores", scores, {2, 3});
  writer.add("low", lows);
  writer.add("ids", ids, {3});
  const TemporaryFolder folder;
  const auto file = NpzFile::open(folder.write("case.npz", writer.bytes()));
  CHECK_FALSE(file.contains("high"));
  CHECK(at::equal(file.read("scores"), at::tensor(scores).to(at::kDouble).view({2, 3})));
  CHECK(at::equal(file.read("low"), at::tensor(lows).squeeze(0)));
  CHECK(at::equal(file.read("ids"), at::tensor(ids).to(at::kDouble)));
}

/// An array's bytes: what NumPy wrote for it, which is here to be looked at.
std::string entry(const NpzWriter& writer, const std::string& name) {
  const auto bytes = writer.bytes();
  for (const auto& entry : read_zip(std::as_bytes(std::span(bytes)), "case.npz")) {
    if (entry.name == name + ".npy") return unpack_entry(entry, "case.npz: " + name);
  }
  return "absent";
}

std::string array(const std::string& header, const std::string& values) {
  const std::string before("\x93NUMPY\x01\x00v\x00", 10);
  return before + header + std::string(117 - header.size(), ' ') + "\n" + values;
}

TEST_CASE("texts and flags are what numpy.save makes of them") {
  NpzWriter writer;
  writer.add_texts("tokens", std::vector<std::string>{"a", "", "\xC3\xA9\xF0\x9F\x8E\xBA", "\xC3"}, {4});
  writer.add_texts("kind", std::array{std::string()});
  writer.add_flag("right", true);
  const auto wide = [](std::initializer_list<std::uint32_t> points) {
    std::string bytes;
    for (const auto point : points) {
      for (unsigned i = 0; i < 4; ++i) bytes += static_cast<char>(point >> 8U * i & 0xFFU);
    }
    return bytes;
  };
  CHECK(entry(writer, "tokens") == array("{'descr': '<U2', 'fortran_order': False, 'shape': (4,), }",
                                         wide({'a', 0, 0, 0, 0xE9, 0x1F3BA, 0xFFFD, 0})));
  CHECK(entry(writer, "kind") == array("{'descr': '<U1', 'fortran_order': False, 'shape': (), }", wide({0})));
  CHECK(entry(writer, "right") == array("{'descr': '|b1', 'fortran_order': False, 'shape': (), }", "\x01"));
}

TEST_CASE("a header that fills a block is followed by one more") {
  NpzWriter writer;
  const std::vector<float> none;
  for (std::size_t lengths = 1; lengths < 40; ++lengths) {
    const auto name = std::to_string(lengths);
    writer.add(name, none, NpzWriter::Shape(lengths, 0));
    const auto bytes = entry(writer, name);
    CHECK(bytes.size() % 64 == 0);
    CHECK(bytes.ends_with('\n'));
    CHECK(static_cast<unsigned char>(bytes[8]) + 256U * static_cast<unsigned char>(bytes[9]) + 10 == bytes.size());
  }
}

TEST_CASE("an archive without entries is one") {
  const auto bytes = ZipWriter().bytes();
  CHECK(read_zip(std::as_bytes(std::span(bytes)), "empty.zip").empty());
}

}  // namespace
}  // namespace rometrace::npz_writer_test
