// The story (story.cpp) on JNA.
import com.sun.jna.LastErrorException;
import com.sun.jna.Library;
import com.sun.jna.Memory;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.IntByReference;

public class Story {
    public interface Libc extends Library {
        int mq_open(String name, int flags, Object... rest) throws LastErrorException;
        int mq_send(int queue, byte[] text, long length, int priority) throws LastErrorException;
        long mq_receive(int queue, byte[] text, long length, IntByReference priority) throws LastErrorException;
        long mq_timedreceive(int queue, byte[] text, long length, Pointer priority, Pointer deadline) throws LastErrorException;
        int mq_close(int queue) throws LastErrorException;
        int mq_unlink(String name) throws LastErrorException;
    }

    public static void main(String[] arguments) {
        Libc libc = Native.load("c", Libc.class);
        Memory attr = new Memory(64), deadline = new Memory(16);
        attr.clear();
        attr.setLong(8, 4);
        attr.setLong(16, 64);
        deadline.clear();
        deadline.setLong(0, 1);
        // O_CREAT | O_EXCL | O_RDWR
        int queue = libc.mq_open("/story", 0100 | 0200 | 2, 0600, attr);
        libc.mq_send(queue, "low".getBytes(), 3, 1);
        libc.mq_send(queue, "high".getBytes(), 4, 9);
        StringBuilder said = new StringBuilder();
        byte[] text = new byte[64];
        for (int i = 0; i < 2; i++) {
            IntByReference priority = new IntByReference();
            long length = libc.mq_receive(queue, text, 64, priority);
            said.append(new String(text, 0, (int) length)).append(' ').append(priority.getValue()).append(' ');
        }
        try {
            libc.mq_timedreceive(queue, text, 64, null, deadline);
        } catch (LastErrorException error) {
            said.append(error.getErrorCode() == 110 ? "timeout" : error.getMessage());
        }
        libc.mq_close(queue);
        libc.mq_unlink("/story");
        System.out.println(said);
    }
}
