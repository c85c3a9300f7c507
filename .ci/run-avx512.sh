#!/bin/bash
# Runs a static x86-64 Linux program on an emulated Skylake-X (AVX-512 F, BW, DQ, VL, CD): boots a
# small Linux under Bochs that runs the program, and prints what it printed. Correctness only; minutes.
#
#     .ci/run-avx512.sh PROGRAM [ARGUMENT...]
#
# Needs Debian's bochs, bochs-term, bochsbios, vgabios, isolinux, syslinux-common, xorriso,
# busybox-static, cpio, and a kernel: $KERNEL, else that of Debian's linux-image-amd64, which
# apt-get downloads. Exits with 0 if the program did. At most $LIMIT seconds (1500).
set -euo pipefail

program=$(realpath "$1")
shift
arguments=$*
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p root/bin root/proc root/dev iso/isolinux

kernel=${KERNEL:-}
if [ -z "$kernel" ]; then
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends/ { print $2; exit }')
    apt-get -q download "$package" > /dev/null
    dpkg -x linux-image-*.deb kernel
    kernel=$(ls kernel/boot/vmlinuz-*)
fi
cp "$kernel" iso/vmlinuz
cp "$(command -v busybox)" root/bin/busybox
cp "$program" root/bin/program

cat > root/init << INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec > /dev/ttyS0 2>&1
/bin/busybox grep -o 'avx[^ ]*' /proc/cpuinfo | /bin/busybox sort -u | /bin/busybox tr '\n' ' '
echo
${ENVIRONMENT:-} /bin/program $arguments
echo "exit code \$?"
/bin/busybox sleep 1
/bin/busybox poweroff -f
INIT
chmod +x root/init
(cd root && find . | cpio -o -H newc 2> /dev/null | gzip -1 > ../iso/initrd.gz)

cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 iso/isolinux/
# Without XSAVEC (321), XSAVES (323) and PKU (515): Bochs 2.7 reports a wrong size of the compacted
# state, for which Linux 5.14 and later switch AVX off altogether.
cat > iso/isolinux/isolinux.cfg << 'CONFIG'
DEFAULT l
PROMPT 0
TIMEOUT 1
LABEL l
 KERNEL /vmlinuz
 APPEND initrd=/initrd.gz console=ttyS0 loglevel=4 noxsaves clearcpuid=321,323,515 mitigations=off nokaslr tsc=reliable lpj=1000000 noapic nosmp random.trust_cpu=on
CONFIG
xorriso -as mkisofs -quiet -o boot.iso -b isolinux/isolinux.bin -c isolinux/boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table iso

cat > bochsrc << CONFIG
megs: 512
cpu: model=corei7_skylake_x, count=1, ips=200000000, reset_on_triple_fault=1
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial.txt
display_library: term
clock: sync=none, time0=local
log: $work/bochs.log
panic: action=report
error: action=ignore
info: action=ignore
CONFIG
echo c > commands
# Bochs wants a terminal, and its exit code says nothing about the program's.
TERM=xterm timeout "${LIMIT:-1500}" script -qfc "bochs -q -f bochsrc -rc commands" typescript \
    > /dev/null 2>&1 < /dev/null || true
cat serial.txt
grep -q '^exit code 0' serial.txt
